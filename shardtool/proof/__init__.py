"""Old against new: looks for each value of an old shard in the new ones, and remembers what it
found. Reads shards and the catalogue; deletes nothing and judges nothing: that is for datadir and
prune."""
