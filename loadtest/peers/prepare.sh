# Sourced by the start scripts: what all peers are given, and where they are installed.
#
#   PEER_CERT, PEER_KEY  PEM certificate chain and private key (required)
#   PEER_CACHE           where packages are installed; default: target/peers of this repository
#   PEER_PORT            port of 127.0.0.1; default: a free one
#
# A peer prints one JSON line, {"url":"wss://..","pid":N}, and then serves until it is killed.

: "${PEER_CERT:?PEM certificate chain}" "${PEER_KEY:?PEM private key}"
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
peer=$(basename "$here")
cache=${PEER_CACHE:-$here/../../../target/peers}/$peer
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

free_port() {
  # The kernel chooses; a moment later it is free again for the peer.
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=${PEER_PORT:-$(free_port)}

# A connection is an open file.
ulimit -n "$(ulimit -Hn)"

# Runs "$@" to install the peer, unless it was installed from this very recipe before. One at a time.
install_once() {
  local recipe
  recipe=$(cat "$here"/* 2>/dev/null | sha256sum | cut -d' ' -f1)
  exec 9>"$cache/.lock"
  flock 9
  if [ "$(cat "$cache/.recipe" 2>/dev/null)" != "$recipe" ]; then
    "$@" >&2
    echo "$recipe" >"$cache/.recipe"
  fi
  exec 9>&-
}

tell() { printf '{"url":"wss://127.0.0.1:%s%s","pid":%s,"version":"%s"}\n' "$port" "$1" "$$" "$2"; }
