"""The scheduler's algorithms, one small file each: plain functions over records, without a clock, a network or chance."""
