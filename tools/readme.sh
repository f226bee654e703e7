#!/usr/bin/env bash
# readme.sh FILE: runs, in order and as written, the commands in FILE's fences marked `sh`.
# Other fences (text, console, …) show output and are not run. Left out, and said so: what
# prepares a machine or a clone (sudo, apt-get, git clone, cd), and `make test`, which calls this.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:?usage: readme.sh FILE}

commands=$(awk '/^```sh[[:space:]]*$/ {on=1; next} /^```/ {on=0} on' "$file")
if [[ -z $commands ]]; then
	echo "readme: $file has no commands in a fence marked sh" >&2
	exit 1
fi

script=$(mktemp)
trap 'rm -f "$script"' EXIT
while IFS= read -r line; do
	bare=${line%%#*}
	bare=${bare%"${bare##*[![:space:]]}"}
	case $bare in
	'') ;;
	'make test' | sudo\ * | apt-get\ * | git\ clone\ * | cd\ *) echo "readme: not run here: $line" ;;
	*) printf '%s\n' "$line" >>"$script" ;;
	esac
done <<<"$commands"
bash -veuo pipefail "$script" </dev/null
