#!/bin/bash
# Compares r-tftpd with the servers that Debian has: tests/bench/run.sh [--short]
#
# Builds everything, fetches the peers (nothing of them is installed or started by the system), and
# measures one server after the other in a network namespace of its own. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."

peers=${CARGO_TARGET_DIR:-target}/bench-peers
((EUID == 0)) || { echo "needs root: a network namespace and port 69" >&2; exit 1; }

# What the peers' programs link; their packages would start services.
libraries=(libwrap0 libpcre3 libpcre2-8-0 libnettle8 libhogweed6 libgmp10 libidn2-0 libnetfilter-conntrack3
  libnftables1 libdbus-1-3 util-linux)
packages=(tftpd-hpa atftpd dnsmasq-base)

if [[ ! -x $peers/usr/sbin/dnsmasq ]]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y "${libraries[@]}" >/dev/null
  rm -rf "$peers"
  mkdir -p "$peers"
  # As root, so that the download needs no other user's rights on this directory.
  (cd "$peers" && apt-get -qq -o APT::Sandbox::User=root download "${packages[@]}")
  for package in "$peers"/*.deb; do
    dpkg-deb --extract "$package" "$peers"
  done
fi
cargo build --release --locked --workspace --quiet
# The loopback device of a new namespace is down; and tftpd-hpa starts only where there is an address
# beside that of loopback.
setup='ip link set lo up && ip link add v0 type veth peer v1 && ip address add 10.98.0.1/24 dev v0
  ip link set v0 up && ip link set v1 up && exec "$@"'
exec unshare --net sh -ec "$setup" sh \
  python3 tests/bench/bench.py "${CARGO_TARGET_DIR:-target}/release" "$peers/usr/sbin" "$@"
