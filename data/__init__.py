"""How data sets come to be and how batches reach the devices."""
