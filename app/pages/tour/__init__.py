"""Tour: the lecture's seven sections, each measured while one looks, on two small networks."""
