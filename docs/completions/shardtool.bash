# bash completion for shardtool
# Made by python -m docs.generate; what is written here by hand is lost.

# Set `reply` to the names of a kind that there are on this machine: old-shards, snapshots, ...
_shardtool_names() {
  local program
  program=$(type -P -- "${words[0]/#\~/$HOME}") || program=shardtool
  mapfile -t reply < <("$program" --complete "$1" "${words[@]:1:${#words[@]}-2}" 2>/dev/null)
}

_shardtool_commands=(status check backup snapshots restore forget spaces migrate verify export rescue accept prune report history)

# Set `kind` to what completes the value of option $2 of command $1; '' if it takes none.
_shardtool_kind() {
  case "$1 $2" in
    *' --data') kind='directories' ;;
    *' --influx-config') kind='files' ;;
    *' --log-format') kind='choices text json' ;;
    'status --every') kind='none' ;;
    'status --prometheus') kind='files' ;;
    'status --warn-free') kind='none' ;;
    'status --critical-free') kind='none' ;;
    'check --pause') kind='none' ;;
    'check --store') kind='directories' ;;
    'check --api') kind='none' ;;
    'check --user') kind='none' ;;
    'check --password-file') kind='files' ;;
    'backup --to') kind='directories' ;;
    'backup --store') kind='directories' ;;
    'snapshots --store') kind='directories' ;;
    'restore --to') kind='directories' ;;
    'restore --store') kind='directories' ;;
    'forget --keep-last') kind='none' ;;
    'forget --keep-within') kind='none' ;;
    'forget --store') kind='directories' ;;
    'spaces --database') kind='databases' ;;
    'spaces --like-0.7') kind='many databases' ;;
    'spaces --take-from') kind='none' ;;
    'spaces --sample') kind='none' ;;
    'spaces --api') kind='none' ;;
    'spaces --user') kind='none' ;;
    'spaces --password-file') kind='files' ;;
    'migrate --pause') kind='none' ;;
    'migrate --store') kind='directories' ;;
    'migrate --stall') kind='none' ;;
    'migrate --every') kind='none' ;;
    'migrate --override') kind='none' ;;
    'migrate --log') kind='files' ;;
    'migrate --api') kind='none' ;;
    'migrate --user') kind='none' ;;
    'migrate --password-file') kind='files' ;;
    'verify --api') kind='none' ;;
    'verify --user') kind='none' ;;
    'verify --password-file') kind='files' ;;
    'export --new') kind='new-shards' ;;
    'export --to') kind='files' ;;
    'export --left') kind='files' ;;
    'export --format') kind='choices line json parquet' ;;
    'export --database') kind='databases' ;;
    'export --series') kind='none' ;;
    'export --from') kind='none' ;;
    'export --until') kind='none' ;;
    'export --sequence') kind='choices auto tag field none' ;;
    'export --api') kind='none' ;;
    'export --user') kind='none' ;;
    'export --password-file') kind='files' ;;
    'rescue --also') kind='choices expired dropped' ;;
    'rescue --pause') kind='none' ;;
    'rescue --api') kind='none' ;;
    'rescue --user') kind='none' ;;
    'rescue --password-file') kind='files' ;;
    'accept --because') kind='none' ;;
    'accept --missing') kind='none' ;;
    'accept --api') kind='none' ;;
    'accept --user') kind='none' ;;
    'accept --password-file') kind='files' ;;
    'prune --trust') kind='choices marker' ;;
    'prune --older-than') kind='none' ;;
    'prune --until-free') kind='none' ;;
    'prune --api') kind='none' ;;
    'prune --user') kind='none' ;;
    'prune --password-file') kind='files' ;;
    'report --html') kind='files' ;;
    'report --store') kind='directories' ;;
  esac
}

# Set `kind` to what completes the positional argument of command $1 at place $2.
_shardtool_argument() {
  case "$1 $2" in
    'snapshots ''0') kind='choices list verify' ;;
    'snapshots '*) kind='snapshots' ;;
    'restore ''0') kind='snapshots' ;;
    'spaces ''0') kind='choices list explain apply' ;;
    'spaces ''1') kind='files' ;;
    'verify '*) kind='old-shards' ;;
    'export '*) kind='old-shards' ;;
    'rescue '*) kind='old-shards' ;;
    'accept ''0') kind='old-shards' ;;
    'prune '*) kind='old-shards' ;;
    'report '*) kind='files' ;;
  esac
}

# Set `reply` to the options of command $1.
_shardtool_options() {
  case "$1" in
    'status') reply=(--watch --every --prometheus --nagios --warn-free --critical-free -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'check') reply=(--pause --no-read --store --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'backup') reply=(--to --store --live -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'snapshots') reply=(--store -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'restore') reply=(--to --store --yes -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'forget') reply=(--keep-last --keep-within --dry-run --store -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'spaces') reply=(--database --like-0.7 --dry-run -n --take-from --sample --yes --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'migrate') reply=(--pause --no-read --store --wait --stall --every --override --log --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'verify') reply=(--again --list --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'export') reply=(--new --lost --to --left --force --format --database --series --from --until --sequence --floats --line-feeds --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'rescue') reply=(--dry-run --create-databases --also --pause --yes --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'accept') reply=(--because --missing --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'prune') reply=(--dry-run -n --yes --trust --older-than --until-free --no-verify --api --user --password-file -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'report') reply=(--html --force --store -h --help --data --influx-config --json --quiet -q --log-format) ;;
    'history') reply=(--all -h --help --data --influx-config --json --quiet -q --log-format) ;;
    *) reply=(--version -h --help --data --influx-config --json --quiet -q --log-format) ;;
  esac
}
# Set `words` to those up to the cursor, in one piece each: bash cuts them at = and : too.
_shardtool_split() {
  local rest=${COMP_LINE:0:COMP_POINT} word bare i
  words=()
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]} bare=${rest#"${rest%%[![:space:]]*}"}
    ((i < COMP_CWORD)) || word=$bare
    if ((i == 0)) || [[ $rest == [[:space:]]* || -z $rest ]]; then
      words+=("$word")
    else
      words[${#words[@]} - 1]+=$word
    fi
    rest=${bare:${#word}}
  done
}

# Offer what of `reply` begins with what was typed.
_shardtool_offer() {
  local typed=${1#[\"\']} word
  for word in "${reply[@]}"; do
    [[ $word != "$typed"* ]] || COMPREPLY+=("${2-}$word")
  done
}

_shardtool_value() {
  local reply=()
  case $kind in
    files) compopt -o default 2>/dev/null ;;
    directories) compopt -o dirnames 2>/dev/null ;;
    choices\ *) read -ra reply <<<"${kind#* }" ;;
    none) ;;
    ?*) _shardtool_names "$kind" ;;
  esac
  _shardtool_offer "$1" "${2-}"
}

_shardtool() {
  local IFS=$' \t\n'  # whatever the user's is
  local words typed word command= kind= going= before= place=0 i reply=()
  COMPREPLY=()
  _shardtool_split
  typed=${words[${#words[@]} - 1]}
  for ((i = 1; i < ${#words[@]} - 1; i++)); do
    word=${words[i]}
    if [[ $word == -?* ]]; then
      kind= going= before=
      [[ $word == *=* ]] || _shardtool_kind "$command" "$word"
      before=$kind
      [[ $kind != many\ * ]] || going=${kind#many } before=${kind#many }
    elif [[ -n $before ]]; then
      before=
    elif [[ -n $going ]]; then
      :
    elif [[ -z $command ]]; then
      command=$word
    else
      ((place++))
    fi
  done
  kind=$before
  if [[ $typed == --*=* ]]; then
    kind=
    _shardtool_kind "$command" "${typed%%=*}"
    kind=${kind#many }
    # What bash replaces begins after the =, unless somebody told it otherwise.
    word=${typed%%=*}=
    [[ $COMP_WORDBREAKS != *=* ]] || word=
    _shardtool_value "${typed#*=}" "$word"
  elif [[ -n $kind ]]; then
    _shardtool_value "$typed"
  elif [[ $typed == -* ]]; then
    _shardtool_options "$command"
    _shardtool_offer "$typed"
  elif [[ -z $command ]]; then
    reply=("${_shardtool_commands[@]}")
    _shardtool_offer "$typed"
  else
    _shardtool_argument "$command" "$place"
    kind=${going:-$kind}
    _shardtool_value "$typed"
  fi
}

complete -F _shardtool shardtool
