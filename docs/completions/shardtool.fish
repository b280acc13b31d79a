# fish completion for shardtool
# Made by python -m docs.generate; what is written here by hand is lost.

# The words before the cursor, from the program's name on.
function __shardtool_words
    set -l words (commandline -opc)
    while set -q words[1]; and string match -qr '^[A-Za-z_][A-Za-z0-9_]*=' -- $words[1]
        set -e words[1]
    end
    printf '%s\n' $words
end

# The names of a kind that there are on this machine: old-shards, snapshots, ...
function __shardtool_names
    for word in (commandline -opc)
        set -l pair (string match -r '^(SHARDTOOL_[A-Z_]+)=(.*)$' -- $word)
        or break
        set -fx $pair[2] $pair[3]
    end
    set -l words (__shardtool_words)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    type -q -- $program; or set program shardtool
    command $program --complete $argv[1] $words[2..-1] 2>/dev/null
end

# The command (or -), and how many positional arguments stand before the cursor.
function __shardtool_place
    set -l command -
    set -l place 0
    set -l skip 0
    for word in (__shardtool_words)[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-?*' $word
            __shardtool_takes_value $command $word; and set skip 1
        else if test $command = -
            set command $word
        else
            set place (math $place + 1)
        end
    end
    echo $command
    echo $place
end

function __shardtool_is
    set -l at (__shardtool_place)
    test "$at[1]" = $argv[1]
end

function __shardtool_at
    set -l at (__shardtool_place)
    test "$at[1]" = $argv[1] -a "$at[2]" -ge $argv[2] -a "$at[2]" -le $argv[3]
end

function __shardtool_takes_value
    switch "$argv"
        case '* --data'
            return 0
        case '* --influx-config'
            return 0
        case '* --log-format'
            return 0
        case 'status --every'
            return 0
        case 'status --prometheus'
            return 0
        case 'status --warn-free'
            return 0
        case 'status --critical-free'
            return 0
        case 'check --pause'
            return 0
        case 'check --store'
            return 0
        case 'check --api'
            return 0
        case 'check --user'
            return 0
        case 'check --password-file'
            return 0
        case 'backup --to'
            return 0
        case 'backup --store'
            return 0
        case 'snapshots --store'
            return 0
        case 'restore --to'
            return 0
        case 'restore --store'
            return 0
        case 'forget --keep-last'
            return 0
        case 'forget --keep-within'
            return 0
        case 'forget --store'
            return 0
        case 'spaces --database'
            return 0
        case 'spaces --like-0.7'
            return 0
        case 'spaces --take-from'
            return 0
        case 'spaces --sample'
            return 0
        case 'spaces --api'
            return 0
        case 'spaces --user'
            return 0
        case 'spaces --password-file'
            return 0
        case 'migrate --pause'
            return 0
        case 'migrate --store'
            return 0
        case 'migrate --stall'
            return 0
        case 'migrate --every'
            return 0
        case 'migrate --override'
            return 0
        case 'migrate --log'
            return 0
        case 'migrate --api'
            return 0
        case 'migrate --user'
            return 0
        case 'migrate --password-file'
            return 0
        case 'verify --api'
            return 0
        case 'verify --user'
            return 0
        case 'verify --password-file'
            return 0
        case 'export --new'
            return 0
        case 'export --to'
            return 0
        case 'export --left'
            return 0
        case 'export --format'
            return 0
        case 'export --database'
            return 0
        case 'export --series'
            return 0
        case 'export --from'
            return 0
        case 'export --until'
            return 0
        case 'export --sequence'
            return 0
        case 'export --api'
            return 0
        case 'export --user'
            return 0
        case 'export --password-file'
            return 0
        case 'rescue --also'
            return 0
        case 'rescue --pause'
            return 0
        case 'rescue --api'
            return 0
        case 'rescue --user'
            return 0
        case 'rescue --password-file'
            return 0
        case 'accept --because'
            return 0
        case 'accept --missing'
            return 0
        case 'accept --api'
            return 0
        case 'accept --user'
            return 0
        case 'accept --password-file'
            return 0
        case 'prune --trust'
            return 0
        case 'prune --older-than'
            return 0
        case 'prune --until-free'
            return 0
        case 'prune --api'
            return 0
        case 'prune --user'
            return 0
        case 'prune --password-file'
            return 0
        case 'report --html'
            return 0
        case 'report --store'
            return 0
    end
    return 1
end

complete -c shardtool -f
complete -c shardtool -n '__shardtool_is -' -a status -d 'where am I, what is next, what could I get back'
complete -c shardtool -n '__shardtool_is -' -a check -d 'is it safe to take the next step, and what would be lost by it'
complete -c shardtool -n '__shardtool_is -' -a backup -d 'copy raft, wal and config.toml into a verified snapshot'
complete -c shardtool -n '__shardtool_is -' -a snapshots -d 'list snapshots, or read them again and verify them'
complete -c shardtool -n '__shardtool_is -' -a restore -d 'put a snapshot\'s raft and wal back, or elsewhere'
complete -c shardtool -n '__shardtool_is -' -a forget -d 'remove old snapshots, never the last verified one'
complete -c shardtool -n '__shardtool_is -' -a spaces -d 'shard spaces'
complete -c shardtool -n '__shardtool_is -' -a migrate -d 'start 0.8\'s migration and follow it to its end'
complete -c shardtool -n '__shardtool_is -' -a verify -d 'prove value by value that old shards are in the new storage'
complete -c shardtool -n '__shardtool_is -' -a export -d 'write shards as line protocol, 0.8\'s JSON or Parquet'
complete -c shardtool -n '__shardtool_is -' -a rescue -d 'send what the migration left behind to the running 0.8'
complete -c shardtool -n '__shardtool_is -' -a accept -d 'say that a shard may go although it loses values'
complete -c shardtool -n '__shardtool_is -' -a prune -d 'delete old shards that the new storage has'
complete -c shardtool -n '__shardtool_is -' -a report -d 'one view of it all, of one node or several'
complete -c shardtool -n '__shardtool_is -' -a history -d 'what was done, when, on what evidence'
complete -c shardtool -n '__shardtool_is -' -l version -d 'show program\'s version number and exit'
complete -c shardtool -s h -l help -d 'show this help message and exit'
complete -c shardtool -l data -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'InfluxDB\'s data directory, holding db/, raft/ and wal/'
complete -c shardtool -l influx-config -r -F -d 'find the three directories in InfluxDB\'s own config.toml instead'
complete -c shardtool -l json -d 'print one JSON document on stdout'
complete -c shardtool -l quiet -s q -d 'print a line at the most'
complete -c shardtool -l log-format -r -f -k -a 'text json' -d 'warnings and errors on stderr as text or as JSON lines'
complete -c shardtool -n '__shardtool_is status' -l watch -d 'look again and again, redrawn, until ctrl-C'
complete -c shardtool -n '__shardtool_is status' -l every -r -f -d 'with --watch'
complete -c shardtool -n '__shardtool_is status' -l prometheus -r -F -d 'write metrics for node_exporter\'s textfile collector'
complete -c shardtool -n '__shardtool_is status' -l nagios -d 'print the line of a monitoring plugin'
complete -c shardtool -n '__shardtool_is status' -l warn-free -r -f -d 'with --nagios'
complete -c shardtool -n '__shardtool_is status' -l critical-free -r -f -d 'with --nagios'
complete -c shardtool -n '__shardtool_is check' -l pause -r -f -d 'how long the migrator rests after each 10,000 points, 0s to 60m'
complete -c shardtool -n '__shardtool_is check' -l no-read -d 'leave the old shards and the WAL unread, which takes as long as verify'
complete -c shardtool -n '__shardtool_is check' -l store -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'the snapshot directory, or s3://BUCKET/PREFIX'
complete -c shardtool -n '__shardtool_is check' -l api -r -f -d 'a server that runs on this data directory, to be asked for its version...'
complete -c shardtool -n '__shardtool_is check' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is check' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_is backup' -l to -l store -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'the snapshot directory, or s3://BUCKET/PREFIX'
complete -c shardtool -n '__shardtool_is backup' -l live -d 'copy although a server is running on the directory'
complete -c shardtool -n '__shardtool_is snapshots' -l store -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'the snapshot directory, or s3://BUCKET/PREFIX'
complete -c shardtool -n '__shardtool_at snapshots 0 0' -f -k -a 'list verify'
complete -c shardtool -n '__shardtool_at snapshots 1 999999' -f -k -a '(__shardtool_names snapshots)'
complete -c shardtool -n '__shardtool_is restore' -l to -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'restore raft, wal and config.toml below DIR, new or empty, and touch no...'
complete -c shardtool -n '__shardtool_is restore' -l store -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'the snapshot directory, or s3://BUCKET/PREFIX'
complete -c shardtool -n '__shardtool_is restore' -l yes -d 'don\'t ask'
complete -c shardtool -n '__shardtool_at restore 0 0' -f -k -a '(__shardtool_names snapshots)'
complete -c shardtool -n '__shardtool_is forget' -l keep-last -r -f -d 'keep the newest N'
complete -c shardtool -n '__shardtool_is forget' -l keep-within -r -f -d 'keep those not older than AGE'
complete -c shardtool -n '__shardtool_is forget' -l dry-run -d 'show the plan, remove nothing'
complete -c shardtool -n '__shardtool_is forget' -l store -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'the snapshot directory, or s3://BUCKET/PREFIX'
complete -c shardtool -n '__shardtool_is spaces' -l database -r -f -k -a '(__shardtool_names databases)' -d 'this one only'
complete -c shardtool -n '__shardtool_is spaces' -l like-0.7 -r -f -k -a '(__shardtool_names databases)' -d 'apply the guide\'s spaces that are like 0.7\'s, to each of these databases'
complete -c shardtool -n '__shardtool_is spaces' -l dry-run -s n -d 'apply'
complete -c shardtool -n '__shardtool_is spaces' -l take-from -r -f -d 'apply'
complete -c shardtool -n '__shardtool_is spaces' -l sample -r -f -d 'apply'
complete -c shardtool -n '__shardtool_is spaces' -l yes -d 'don\'t ask'
complete -c shardtool -n '__shardtool_is spaces' -l api -r -f -d 'a server of the running cluster, such as http://localhost:8086'
complete -c shardtool -n '__shardtool_is spaces' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is spaces' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_at spaces 0 0' -f -k -a 'list explain apply'
complete -c shardtool -n '__shardtool_at spaces 1 1' -F
complete -c shardtool -n '__shardtool_is migrate' -l pause -r -f -d 'how long the migrator rests after each 10,000 points, 0s to 60m'
complete -c shardtool -n '__shardtool_is migrate' -l no-read -d 'leave the old shards and the WAL unread, which takes as long as verify'
complete -c shardtool -n '__shardtool_is migrate' -l store -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'the snapshot directory, or s3://BUCKET/PREFIX'
complete -c shardtool -n '__shardtool_is migrate' -l wait -d 'follow the migration until it has ended'
complete -c shardtool -n '__shardtool_is migrate' -l stall -r -f -d 'with --wait'
complete -c shardtool -n '__shardtool_is migrate' -l every -r -f -d 'with --wait'
complete -c shardtool -n '__shardtool_is migrate' -l override -r -f -d 'start although the check has this blocker'
complete -c shardtool -n '__shardtool_is migrate' -l log -r -F -d 'InfluxDB\'s log'
complete -c shardtool -n '__shardtool_is migrate' -l api -r -f -d 'the server that runs on this data directory'
complete -c shardtool -n '__shardtool_is migrate' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is migrate' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_is verify' -l again -d 'read again what has a receipt that holds'
complete -c shardtool -n '__shardtool_is verify' -l list -d 'print each missing or different value as a JSON line, and nothing else'
complete -c shardtool -n '__shardtool_is verify' -l api -r -f -d 'a server of the running cluster, such as http://localhost:8086'
complete -c shardtool -n '__shardtool_is verify' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is verify' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_at verify 0 999999' -f -k -a '(__shardtool_names old-shards)'
complete -c shardtool -n '__shardtool_is export' -l new -r -f -k -a '(__shardtool_names new-shards)' -d 'number of a new shard'
complete -c shardtool -n '__shardtool_is export' -l lost -d 'only values of old shards that are not in the new storage'
complete -c shardtool -n '__shardtool_is export' -l to -r -F -d 'the file'
complete -c shardtool -n '__shardtool_is export' -l left -r -F -d 'the list of what can\'t go out'
complete -c shardtool -n '__shardtool_is export' -l force -d 'replace FILE, and FILE.left, if they are there'
complete -c shardtool -n '__shardtool_is export' -l format -r -f -k -a 'line json parquet' -d 'see below'
complete -c shardtool -n '__shardtool_is export' -l database -r -f -k -a '(__shardtool_names databases)' -d 'only this one'
complete -c shardtool -n '__shardtool_is export' -l series -r -f -d 'only series that it matches'
complete -c shardtool -n '__shardtool_is export' -l from -r -f -d 'only values from then on'
complete -c shardtool -n '__shardtool_is export' -l until -r -f -d 'only those before'
complete -c shardtool -n '__shardtool_is export' -l sequence -r -f -k -a 'auto tag field none' -d 'where line protocol gets the sequence number'
complete -c shardtool -n '__shardtool_is export' -l floats -d 'line protocol'
complete -c shardtool -n '__shardtool_is export' -l line-feeds -d 'line protocol'
complete -c shardtool -n '__shardtool_is export' -l api -r -f -d 'with --lost'
complete -c shardtool -n '__shardtool_is export' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is export' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_at export 0 999999' -f -k -a '(__shardtool_names old-shards)'
complete -c shardtool -n '__shardtool_is rescue' -l dry-run -d 'show what would be sent'
complete -c shardtool -n '__shardtool_is rescue' -l create-databases -d 'make databases that 0.8 does not know, for the values in them'
complete -c shardtool -n '__shardtool_is rescue' -l also -r -f -k -a 'expired dropped' -d 'send values too that are gone for this cause'
complete -c shardtool -n '__shardtool_is rescue' -l pause -r -f -d 'how long to rest after each 10,000 points'
complete -c shardtool -n '__shardtool_is rescue' -l yes -d 'don\'t ask'
complete -c shardtool -n '__shardtool_is rescue' -l api -r -f -d 'a server of the running cluster'
complete -c shardtool -n '__shardtool_is rescue' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is rescue' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_at rescue 0 999999' -f -k -a '(__shardtool_names old-shards)'
complete -c shardtool -n '__shardtool_is accept' -l because -r -f -d 'why these values may go'
complete -c shardtool -n '__shardtool_is accept' -l missing -r -f -d 'the number of values that will be lost, instead of typing it'
complete -c shardtool -n '__shardtool_is accept' -l api -r -f -d 'a server of the running cluster, such as http://localhost:8086'
complete -c shardtool -n '__shardtool_is accept' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is accept' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_at accept 0 0' -f -k -a '(__shardtool_names old-shards)'
complete -c shardtool -n '__shardtool_is prune' -l dry-run -s n -d 'print the plan, do nothing'
complete -c shardtool -n '__shardtool_is prune' -l yes -d 'don\'t ask'
complete -c shardtool -n '__shardtool_is prune' -l trust -r -f -k -a 'marker' -d 'take a sound marker for evidence, as the vendor\'s guide does'
complete -c shardtool -n '__shardtool_is prune' -l older-than -r -f -d 'keep what was marked more recently, such as 7d'
complete -c shardtool -n '__shardtool_is prune' -l until-free -r -f -d 'oldest marker first, until the file system has SIZE free, such as 100G'
complete -c shardtool -n '__shardtool_is prune' -l no-verify -d 'read no shard now'
complete -c shardtool -n '__shardtool_is prune' -l api -r -f -d 'a server of the running cluster, such as http://localhost:8086'
complete -c shardtool -n '__shardtool_is prune' -l user -r -f -d 'cluster admin to log in as'
complete -c shardtool -n '__shardtool_is prune' -l password-file -r -F -d 'holds the password'
complete -c shardtool -n '__shardtool_at prune 0 999999' -f -k -a '(__shardtool_names old-shards)'
complete -c shardtool -n '__shardtool_is report' -l html -r -F -d 'write a page too'
complete -c shardtool -n '__shardtool_is report' -l force -d 'with --html'
complete -c shardtool -n '__shardtool_is report' -l store -r -f -k -a '(__fish_complete_directories (commandline -ct))' -d 'the snapshot directory, or s3://BUCKET/PREFIX'
complete -c shardtool -n '__shardtool_at report 0 999999' -F
complete -c shardtool -n '__shardtool_is history' -l all -d 'intents and renames too'
