#!/bin/bash
# Builds the fuzz targets, replays their corpora, and fuzzes all of them for some time. Ends with `N passed, N failed`.
#
# Needs a stable Rust toolchain and g++, which compiles libFuzzer; neither cargo-fuzz nor a nightly.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<END
Usage: tests/fuzz/run.sh [--seconds N] [--keep] [--lint] [TARGET]...

Builds the fuzz targets, replays their corpora, and fuzzes each TARGET (all without one).

  --seconds N  time for all targets together, 60 by default; 0 replays only. As many
               targets run at once as there are processors, each on one of them.
  --keep       adds what was found to the corpora and minimises them
  --lint       checks format and style of the targets first
  --help       shows this

Targets: ${all[*]}
An input that fails stays in tests/fuzz/artifacts/TARGET/.
END
}

# What `cargo fuzz` builds with, but for the sanitizer, which takes a nightly: the product has unsafe code in two files
# only, and neither is in a target's way but for the broker's system calls.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-stack-depth
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing"
mapfile -t all < <(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)

main() {
  local seconds=60 keep='' lint='' targets=() target
  while (($#)); do
    case $1 in
      --help) usage; return ;;
      --seconds) seconds=${2?--seconds takes a number}; shift ;;
      --keep) keep=1 ;;
      --lint) lint=1 ;;
      -*) usage >&2; return 2 ;;
      *)
        [[ -e fuzz_targets/$1.rs ]] || { echo "no target $1, there are: ${all[*]}" >&2; return 2; }
        targets+=("$1") ;;
    esac
    shift
  done
  [[ $seconds =~ ^[0-9]+$ ]] || { usage >&2; return 2; }
  ((${#targets[@]})) || targets=("${all[@]}")

  local host programs jobs share
  host=$(rustc -vV | sed -n 's/^host: //p')
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(realpath ../..)/target/fuzz}
  programs=$CARGO_TARGET_DIR/$host/release
  # Only with --target are flags for the targets none for build scripts and macros.
  local build=(--release --locked --target "$host" --quiet)
  if [[ $lint ]]; then
    cargo fmt --check
    RUSTFLAGS=$flags cargo clippy "${build[@]}" -- -D warnings
  fi
  RUSTFLAGS=$flags cargo build "${build[@]}" "${targets[@]/#/--bin=}"
  # The trees of the target `path` want a file system in memory.
  scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
  trap 'rm -rf "$scratch"' EXIT
  jobs=$(nproc)
  share=$(((seconds * jobs + ${#targets[@]} - 1) / ${#targets[@]}))
  for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n || true; done
    fuzz "$target" &
  done
  wait
  local good
  good=$(find "$scratch" -name passed | wc -l)
  echo "$good passed, $((${#targets[@]} - good)) failed"
  ((good == ${#targets[@]}))
}

# Replays and fuzzes one target.
fuzz() {
  local target=$1 here=$scratch/$1 found=() options
  mkdir -p "$here/tmp" "$here/found" "corpus/$target" "artifacts/$target"
  export TMPDIR=$here/tmp
  options=(-timeout=10 -rss_limit_mb=1024 -max_len=1024 -artifact_prefix="artifacts/$target/" -print_final_stats=1)
  [[ -z $keep ]] || found=("corpus/$target")
  # All of the corpus as it is, then what the fuzzer makes of it.
  local inputs=("corpus/$target"/*)
  if [[ -e ${inputs[0]} ]]; then
    "$programs/$target" "${options[@]}" "${inputs[@]}" >"$here/log" 2>&1 || { fails "$target"; return; }
  elif [[ -z $keep ]]; then
    echo "FAILED: $target has no corpus"
    return
  fi
  if ((seconds)) && ! "$programs/$target" "${options[@]}" -max_total_time="$share" \
    "$here/found" "corpus/$target" >"$here/log" 2>&1; then
    fails "$target"
    return
  fi
  if ((${#found[@]})); then
    mkdir "$here/least"
    "$programs/$target" -max_len=1024 -merge=1 -set_cover_merge=1 -use_counters=0 "$here/least" "$here/found" "${found[@]}" \
      >"$here/merge" 2>&1 || { fails "$target"; return; }
    rm -rf "corpus/$target"
    mv "$here/least" "corpus/$target"
  fi
  touch "$here/passed"
  echo "ok: $target, $(summary "$here/log"), $(find "corpus/$target" -type f | wc -l) inputs in its corpus"
}

fails() {
  echo "FAILED: $1"
  # The panic, and the input in hexadecimal and base64.
  grep -v '^#' "$scratch/$1/log" | tail -n 60
}

# Executions and edges covered, as libFuzzer tells them.
summary() {
  local executions edges
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$1" | tail -n 1)
  edges=$(sed -n 's/^.* cov: \([0-9]*\).*/\1/p' "$1" | tail -n 1)
  echo "${executions:-no} executions, ${edges:-corpus only, no} edges"
}

main "$@"
