#!/bin/bash
# Builds the four programs of a release so that whoever builds them gets the same, bit for bit.
#
#   contrib/reproduce.sh          builds the last commit twice, under different circumstances, and compares
#   contrib/reproduce.sh DIR      builds it once, and compares with the programs in DIR
#
# Exit status 0: they are the same; their SHA-256 sums are printed, and they are in target/reproduced. REPRODUCIBLE.md
# beside this file says what else must be the same. Takes two release builds, or one, and 2 GB in TMPDIR.
set -euo pipefail
others=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
programs=(r-tftpd r-tftpd-broker r-tftpd-worker r-tftpd-fetcher)

main() {
  (($# <= 1)) || { sed -n '2,/^set/{/^set/!p}' "$0" >&2; exit 2; }
  commit=$(git rev-parse HEAD)
  place=$(mktemp -d)
  trap 'rm -rf "$place"' EXIT
  # What was downloaded already serves both; nothing is asked of the network again.
  cargo fetch --quiet --locked
  build "$place/a" 022 UTC C
  if [[ $others ]]; then
    compare "$others"
  else
    build "$place/quite-another/b" 077 Asia/Kathmandu C.UTF-8
    compare "$place/quite-another/b/programs"
  fi
  install -D -t target/reproduced "${programs[@]/#/$place/a/programs/}"
}

# Builds in a new directory, with a home, a file mode mask, a time zone and a language of its own.
build() {
  local home=$1/home source=$1/source sysroot compiler flags
  mkdir -p "$home/cargo/registry" "$source" "$1/programs"
  git archive "$commit" | tar -x -m -C "$source"
  ln -s "${CARGO_HOME:-$HOME/.cargo}"/registry/{cache,index} "$home/cargo/registry"
  for settings in config.toml config; do
    [[ ! -e ${CARGO_HOME:-$HOME/.cargo}/$settings ]] || cp "${CARGO_HOME:-$HOME/.cargo}/$settings" "$home/cargo"
  done
  sysroot=$(rustc --print sysroot)
  compiler=$(rustc -vV | sed -n 's/^commit-hash: //p')
  # Places where panics come from are in the programs: named as if the sources were there for everyone. The one of std
  # is that which rustc itself gives where it has no sources of it.
  flags=(
    "--remap-path-prefix=$home/cargo/registry/src=/cargo"
    "--remap-path-prefix=$source=/r-tftpd"
    "--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$compiler"
  )
  (
    umask "$2"
    export TZ=$3 LC_ALL=$4 CARGO_HOME=$home/cargo RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} HOME=$home
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
    # The same for what is written in C.
    CFLAGS="-ffile-prefix-map=$home/cargo/registry/src=/cargo -ffile-prefix-map=$source=/r-tftpd"
    export CARGO_ENCODED_RUSTFLAGS CFLAGS
    # What else whoever calls this may have set.
    unset RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET "${!CARGO_PROFILE_@}"
    cd "$source"
    cargo build --release --locked --offline --package r-tftpd --bins
  )
  install -t "$1/programs" "${programs[@]/#/$source/target/release/}"
}

compare() {
  local program same=1
  for program in "${programs[@]}"; do
    if cmp "$place/a/programs/$program" "$1/$program"; then
      (cd "$place/a/programs" && sha256sum "$program")
    else
      same=0
    fi
  done
  ((same)) || { echo 'not the same' >&2; exit 1; }
}

main "$@"
