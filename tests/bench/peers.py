"""Fetches and builds the peers: peers.py DIRECTORY [--short]

Each gets a directory of its own below DIRECTORY. Nothing is installed or started by the system, but
for the libraries that Debian's programs link. The short form takes only Debian's. What can not be had
is named, and its figures will be missing.
"""

import os
import shutil
import subprocess
import sys

# What Debian's programs link; the packages themselves would start services.
LIBRARIES = ("libwrap0", "libpcre3", "libpcre2-8-0", "libnettle8", "libhogweed6", "libgmp10",
             "libidn2-0", "libnetfilter-conntrack3", "libnftables1", "libdbus-1-3")
PACKAGES = {"tftpd-hpa": "in.tftpd", "atftpd": "atftpd", "dnsmasq-base": "dnsmasq"}

# Crates with a program: name of the server, crate, version, program.
CRATES = (
    ("r-tftpd-0.4.0", "r-tftpd", "0.4.0", "r-tftpd"),
    ("rs-tftpd", "tftpd", "1.0.0", "tftpd"),
)

# A library, so it needs a program around it. Tokio is the runtime that its page shows.
ASYNC_TFTP = "0.4.2"
ASYNC_MANIFEST = f"""\
[package]
name = "async-tftp-server"
version = "0.0.0"
edition = "2021"

[dependencies]
async-tftp = "={ASYNC_TFTP}"
tokio = {{ version = "1", features = ["rt-multi-thread"] }}

[profile.release]
lto = "fat"
codegen-units = 1

[workspace]
"""
ASYNC_MAIN = """\
use async_tftp::server::TftpServerBuilder;

fn main() {
    let address = std::env::args().nth(1).expect("ADDRESS:PORT").parse().expect("ADDRESS:PORT");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let serve = async {
        let server = TftpServerBuilder::with_dir_ro(".")?.bind(address).build().await?;
        server.serve().await
    };
    runtime.block_on(serve).expect("serve");
}
"""


def main():
    """What is there already stays as it is."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__.strip())
    place = os.path.abspath(sys.argv[1])
    debian = os.path.join(place, "debian")
    if not all(os.path.exists(f"{debian}/usr/sbin/{program}") for program in PACKAGES.values()):
        attempt("Debian's servers", fetch_debian, debian)
    if "--short" in sys.argv:
        return
    for name, crate, version, program in CRATES:
        if not os.path.exists(f"{place}/{name}/bin/{program}"):
            attempt(name, run, "cargo", "install", "--quiet", "--locked", "--root",
                    f"{place}/{name}", f"{crate}@{version}")
    if not os.path.exists(f"{place}/async-tftp/bin/async-tftp-server"):
        attempt("async-tftp", build_async_tftp, f"{place}/async-tftp")


def attempt(name, action, *words):
    """The benchmark goes on without a peer that can not be had."""
    print(f"fetching {name}", flush=True)
    try:
        action(*words)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name} can not be had: {error}", flush=True)


def run(*words, **options):
    """A command that must go well."""
    subprocess.run(words, check=True, **options)


def fetch_debian(place):
    """Extracts the packages."""
    apt = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(*apt, "update")
    run(*apt, "install", "--no-install-recommends", "-y", *LIBRARIES, stdout=subprocess.DEVNULL)
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    # As root, so that the download needs no other user's rights on this directory.
    run(*apt, "-o", "APT::Sandbox::User=root", "download", *PACKAGES, cwd=place)
    for package in os.listdir(place):
        if package.endswith(".deb"):
            run("dpkg-deb", "--extract", f"{place}/{package}", place)


def build_async_tftp(place):
    """A program around the library, outside our workspace: our Cargo.lock does not know it."""
    os.makedirs(f"{place}/src", exist_ok=True)
    os.makedirs(f"{place}/bin", exist_ok=True)
    with open(f"{place}/Cargo.toml", "w") as file:
        file.write(ASYNC_MANIFEST)
    with open(f"{place}/src/main.rs", "w") as file:
        file.write(ASYNC_MAIN)
    run("cargo", "build", "--quiet", "--release", "--manifest-path", f"{place}/Cargo.toml",
        "--target-dir", f"{place}/target")
    shutil.copy(f"{place}/target/release/async-tftp-server", f"{place}/bin")


main()
