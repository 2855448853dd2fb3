#!/bin/bash
# Compares r-tftpd with other TFTP servers: `tests/bench/run.sh --help`, and README.md beside this file.
#
# Builds everything, fetches the peers (nothing of them is installed or started by the system), and
# measures one server after the other in a network namespace of its own. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
peers=$target/bench-peers

main() {
  case " $* " in
    *' --help '* | *' -h '*) exec python3 -B tests/bench/bench.py . . . --help ;;
  esac
  if ((EUID != 0)); then
    echo 'needs root: a network namespace and port 69' >&2
    exit 1
  fi
  python3 -B tests/bench/peers.py "$peers" "$@"
  cargo build --release --locked --workspace --quiet
  # The loopback device of a new namespace is down; and tftpd-hpa starts only where there is an address
  # beside that of loopback.
  local setup='ip link set lo up && ip link add v0 type veth peer v1 && ip address add 10.98.0.1/24 dev v0
    ip link set v0 up && ip link set v1 up && exec "$@"'
  exec unshare --net sh -ec "$setup" sh \
    python3 -B tests/bench/bench.py "$target/release" "$peers" "$target/bench" "$@"
}

main "$@"
