#!/bin/sh
# Start of every container: secret files become environment variables, then this process becomes the command.
# A file is the variable of its name; what the environment has already stays. Arguments alone go to llm-bench.
set -eu

refuse() {
    echo "llm-entrypoint: $1 cannot be read by user $(id -u): let that user read it" >&2
    exit 2
}

folder=${SECRETS_DIR:-/run/secrets}
if [ -d "$folder" ] && ! { [ -r "$folder" ] && [ -x "$folder" ]; }; then
    refuse "$folder"
fi
for file in "$folder"/*; do
    [ -f "$file" ] || continue
    name=${file##*/}
    case $name in
    *[!A-Za-z0-9_]* | [0-9]*)
        echo "llm-entrypoint: $file is not taken: its name cannot be that of a variable (OPENAI_API_KEY can)" >&2
        continue
        ;;
    esac
    eval "given=\${$name+given}"
    [ -z "$given" ] || continue
    [ -r "$file" ] || refuse "$file"
    # Editors end files with a newline, some with CR LF; neither is part of a key.
    value=$(tr -d '\r' <"$file")
    export "$name=$value"
done
unset folder file name given value

case ${1:-} in
-* | '') set -- llm-bench "$@" ;;
esac
exec "$@"
