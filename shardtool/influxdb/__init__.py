"""The formats and the wire: what InfluxDB 0.7 and 0.8 write and say, decoded; no decisions."""
