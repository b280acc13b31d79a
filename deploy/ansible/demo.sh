#!/bin/sh
# Three nodes of an InfluxDB 0.7 cluster, taken through upgrade.yml to pruned, and the report:
# `make demo-cluster`, or sh deploy/ansible/demo.sh in a venv that has shardtool[fixtures] and
# ansible-core. In the place of InfluxDB there is fixtures/standin.py, a process for each node.
# usage: demo.sh [DIRECTORY]   (default demo-cluster; what is there is removed first)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
directory=${1:-demo-cluster}
export PYTHONPATH="$repository" ANSIBLE_CONFIG="$here/ansible.cfg" ANSIBLE_NOCOWS=1
python=$(command -v python)

say() { printf '\n# %s\n' "$*"; }

stop() {
  for node in "$directory"/node*; do
    [ -d "$node" ] && "$python" -m fixtures.standin stop "$node"
  done
}

[ -d "$directory" ] && stop
rm -rf "$directory"
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
trap stop EXIT INT TERM

say "A cluster of three servers of 0.7, running:"
"$python" -m fixtures.cluster07 "$directory"
for node in "$directory"/node*; do
  "$python" -m fixtures.standin start "$node"
done

"$python" -m fixtures.standin inventory "$directory" > "$directory/inventory.yml"

say "What would be done; --check changes nothing:"
ansible-playbook -i "$directory/inventory.yml" "$here/upgrade.yml" --check

say "All of it, to pruned and reported:"
ansible-playbook -i "$directory/inventory.yml" "$here/upgrade.yml"

say "Once more: there is nothing to do."
ansible-playbook -i "$directory/inventory.yml" "$here/upgrade.yml" > "$directory/second.out"
sed -n '/^PLAY RECAP/,$p' "$directory/second.out"
say "The page for the ticket: $directory/report/shardtool.html"
