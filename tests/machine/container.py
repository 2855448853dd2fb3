"""The image and how it is run: built from the Containerfile, started as the commands in the README
and the Kubernetes manifest say, in a network of namespaces.

No registry is asked: in place of the image with Rust stands one that has a shell, and whose cargo
hands out programs that were linked here, statically, as the Containerfile says but with less
optimization. No engine runs: buildah builds, crun starts, with the default seccomp profile of Podman.

Needs root, cargo, buildah, crun, nft, and python3-yaml.
"""

import contextlib
import dataclasses
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

import yaml

from support import DEADLINE, NAMES, Daemon, directory, get, main, namespaces, pattern, run, sha256, test, write

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONTAINERFILE = f"{REPOSITORY}/contrib/container/Containerfile"
README = f"{REPOSITORY}/contrib/container/README.md"
MANIFEST = f"{REPOSITORY}/contrib/container/kubernetes.yaml"
PROFILE = "/usr/share/containers/seccomp.json"
TARGET = f"{platform.machine()}-unknown-linux-gnu"
CONTENTS = pattern(300_000)
# An unprivileged user may bind every port in a new namespace here and there: not in this test.
RESERVE = ["sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1024"]


def text(path):
    """A file of the repository."""
    with open(path, encoding="utf-8") as file:
        return file.read()


# ---- the image ----


def static_programs():
    """The directory of statically linked programs; made as the Containerfile says, but for the time it takes."""
    command = re.search(r"(RUSTFLAGS=.*?); \\\n", text(CONTAINERFILE), re.DOTALL)[1]
    words = shlex.split(command.replace("\\\n", ""))
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    quick = {"LTO": "off", "CODEGEN_UNITS": "16", "OPT_LEVEL": "0"}
    settings |= {f"CARGO_PROFILE_RELEASE_{key}": value for key, value in quick.items()}
    places = {"$target": TARGET, "/target": f"{REPOSITORY}/target/static"}
    words = [places.get(word, word) for word in words]
    done = subprocess.run(words, cwd=REPOSITORY, env=os.environ | settings, check=False)
    assert done.returncode == 0, words
    return f"{REPOSITORY}/target/static/{TARGET}/release"


def needed():
    """What cargo reads of the repository to build them."""
    with open(f"{REPOSITORY}/Cargo.toml", "rb") as file:
        members = [".", *tomllib.load(file)["workspace"]["members"]]
    found = {"Cargo.lock", *(f"{member}/Cargo.toml" for member in members)}
    found |= {f"{member}/build.rs" for member in members if os.path.exists(f"{REPOSITORY}/{member}/build.rs")}
    for name in NAMES:
        # As for make: the program, a colon, and all sources it was made from.
        sources = text(f"{REPOSITORY}/target/static/{TARGET}/release/{name}.d").split(":", 1)[1].split()
        found |= {os.path.relpath(source, REPOSITORY) for source in sources}
    assert "src/lib.rs" in found and "broker/src/lib.rs" in found, found
    return sorted(found)


# Hands out what was built, if it is asked for that and could build it.
CARGO = """#!/bin/sh
[ "$*" = "build --release --locked --package r-tftpd --bins --target {target} --target-dir /target" ] || exit 1
[ "$RUSTFLAGS" = "-C target-feature=+crt-static" ] || exit 2
while read -r file; do
  [ -e "$file" ] || {{ echo "no $file" >&2; exit 3; }}
done < /programs/needed
rm /programs/needed
mkdir -p /target/{target}/release
cp /programs/* /target/{target}/release/
"""


class Image:
    """The image, unpacked: `root` is its directory, `config` what it says of how to start it."""

    def __init__(self, stack):
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="r-tftpd-test-"))
        self.buildah = ["buildah", "--root", f"{home}/store", "--runroot", f"{home}/run", "--storage-driver", "vfs"]
        base = f"{home}/base"
        self.make_base(base)
        write(f"{home}/Base", b"FROM scratch\nCOPY base/ /\nENV PATH=/bin\n")
        build = [*self.buildah, "build", "--isolation", "chroot", "--quiet"]
        run([*build, "--tag", "localhost/base", "--file", f"{home}/Base", home])
        image = ["--tag", "localhost/r-tftpd", "--build-arg", "RUST_IMAGE=localhost/base"]
        run([*build, *image, "--file", CONTAINERFILE, REPOSITORY])
        inspected = json.loads(run([*self.buildah, "inspect", "--type", "image", "localhost/r-tftpd"]))
        self.config = inspected["OCIv1"]["config"]
        self.name = run([*self.buildah, "from", "--pull-never", "localhost/r-tftpd"]).decode().strip()
        self.root = run([*self.buildah, "mount", self.name]).decode().strip()
        stack.callback(run, [*self.buildah, "umount", self.name])

    @staticmethod
    def make_base(base):
        """A shell, what the Containerfile calls, and their libraries."""
        for name in ("bin", "programs", "etc/ssl/certs"):
            os.makedirs(f"{base}/{name}")
        for name in ("dash", "sed", "install", "mkdir", "cp", "rm"):
            program = shutil.which(name)
            shutil.copy(program, f"{base}/bin/{name}")
            for library in re.findall(r"(/\S+) \(0x", run(["ldd", program]).decode()):
                os.makedirs(f"{base}{os.path.dirname(library)}", exist_ok=True)
                shutil.copy(library, f"{base}{library}")
        os.symlink("dash", f"{base}/bin/sh")
        write(f"{base}/etc/ssl/certs/ca-certificates.crt", b"no certificate\n")
        write(f"{base}/bin/rustc", f"#!/bin/sh\necho host: {TARGET}\n".encode())
        write(f"{base}/bin/cargo", CARGO.format(target=TARGET).encode())
        for name in ("rustc", "cargo"):
            os.chmod(f"{base}/bin/{name}", 0o755)
        programs = static_programs()
        for name in NAMES:
            shutil.copy(f"{programs}/{name}", f"{base}/programs/{name}")
        write(f"{base}/programs/needed", "".join(f"{path}\n" for path in needed()).encode())

    def files(self):
        """All files in it, as (path, mode, user)."""
        found = {}
        for here, _, names in os.walk(self.root):
            for name in names:
                path = f"{here}/{name}"
                status = os.lstat(path)
                found[path.removeprefix(self.root)] = (status.st_mode & 0o7777, status.st_uid)
        return found


STACK = contextlib.ExitStack()
MADE = []


def image():
    """The image, built once."""
    if not MADE:
        MADE.append(Image(STACK))
    return MADE[0]


@test
def the_image_has_four_static_programs_and_nothing_to_run_but_them():
    files = image().files()
    programs = {"/usr/sbin/r-tftpd", *(f"/usr/libexec/r-tftpd/{name}" for name in NAMES[1:])}
    others = {"/etc/passwd", "/etc/group", "/etc/ssl/certs/ca-certificates.crt", "/usr/share/doc/r-tftpd/LICENSE"}
    assert set(files) == programs | others, files
    for path, (mode, user) in files.items():
        assert user == 0 and mode == (0o755 if path in programs else 0o644), (path, oct(mode), user)
    for path in programs:
        with open(f"{image().root}{path}", "rb") as file:
            assert b"ld-linux" not in file.read(4096), f"{path} wants a loader"
    status = os.stat(f"{image().root}/var/cache/r-tftpd")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (990, 990, 0o700), status
    assert os.stat(f"{image().root}/srv/tftp").st_mode & 0o777 == 0o755


@test
def the_image_says_how_it_is_started_and_by_whom():
    config = image().config
    assert config["User"] == "990:990" and config["ExposedPorts"] == {"69/udp": {}}, config
    assert config["Entrypoint"] == ["/usr/sbin/r-tftpd", "--root", "/srv/tftp"] and "Cmd" not in config, config
    licence = re.search(r'^license = "(.*)"', text(f"{REPOSITORY}/Cargo.toml"), re.MULTILINE)[1]
    assert config["Labels"]["org.opencontainers.image.licenses"] == licence, config


# ---- what the recipes say ----


@dataclasses.dataclass
class Recipe:
    """How to run the image; `user` none = the image's."""

    network: str
    user: tuple | None
    read_only: bool
    capabilities: set
    no_new_privileges: bool
    sysctls: dict
    # Mount points, and whether they are read-only.
    volumes: dict
    published: list
    arguments: list


# Options with a value; no other but these are known here.
VALUED = (
    "name", "restart", "network", "ip", "user", "cap-drop", "cap-add", "security-opt", "volume", "sysctl", "publish",
)


def commands():
    """The commands that run the image, in the order of the README."""
    blocks = re.findall(r"^    (docker run .*(?:\n      .*)*)", text(README), re.MULTILINE)
    return [parse(shlex.split(block.replace("\\\n", ""))[2:]) for block in blocks]


def parse(words):
    """A recipe from the options of `docker run`."""
    options = {name: [] for name in VALUED}
    flags = set()
    words = list(words)
    while words[0].startswith("--"):
        name = words.pop(0).removeprefix("--")
        if name in VALUED:
            options[name].append(words.pop(0))
        else:
            flags.add(name)
    assert flags <= {"detach", "read-only"} and words.pop(0) == "r-tftpd", (flags, words)
    assert options["cap-drop"] == ["ALL"], options
    assert set(options["security-opt"]) <= {"no-new-privileges"}, options
    volumes = [volume.split(":") for volume in options["volume"]]
    return Recipe(
        network=options["network"][0] if options["network"] else "bridge",
        user=tuple(map(int, options["user"][0].split(":"))) if options["user"] else None,
        read_only="read-only" in flags,
        capabilities=set(options["cap-add"]),
        no_new_privileges="no-new-privileges" in options["security-opt"],
        sysctls=dict(each.split("=") for each in options["sysctl"]),
        volumes={volume[1]: volume[2:] == ["ro"] for volume in volumes},
        published=options["publish"],
        arguments=words,
    )


# Fields of the manifest that there are, for this kind of object; a leaf is the type of the value.
CONTAINER = {
    "name": str, "image": str, "imagePullPolicy": {"Always", "IfNotPresent", "Never"}, "args": [str],
    "ports": [{"name": str, "containerPort": int, "hostPort": int, "protocol": {"TCP", "UDP", "SCTP"}}],
    "securityContext": {
        "runAsUser": int, "runAsGroup": int, "runAsNonRoot": bool, "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool, "privileged": bool, "capabilities": {"drop": [str], "add": [str]},
        "seccompProfile": {"type": {"RuntimeDefault", "Unconfined", "Localhost"}, "localhostProfile": str},
    },
    "resources": {key: {"cpu": str, "memory": str, "ephemeral-storage": str} for key in ("requests", "limits")},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
POD = {
    "nodeSelector": {str: str}, "hostNetwork": bool, "priorityClassName": str, "automountServiceAccountToken": bool,
    "dnsPolicy": {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"}, "enableServiceLinks": bool,
    "terminationGracePeriodSeconds": int, "containers": [CONTAINER],
    "volumes": [{"name": str, "hostPath": {"path": str, "type": {"Directory", "DirectoryOrCreate"}}, "emptyDir": {}}],
}
LABELS = {str: str}
OBJECTS = {
    "Namespace": {"apiVersion": {"v1"}, "kind": str, "metadata": {"name": str, "labels": LABELS}},
    "DaemonSet": {
        "apiVersion": {"apps/v1"}, "kind": str, "metadata": {"name": str, "namespace": str, "labels": LABELS},
        "spec": {
            "selector": {"matchLabels": LABELS},
            "updateStrategy": {"type": {"RollingUpdate", "OnDelete"}, "rollingUpdate": {"maxUnavailable": int}},
            "template": {"metadata": {"labels": LABELS}, "spec": POD},
        },
    },
}


def check(value, schema, where):
    """That a part of the manifest has no other fields, and values of the right type."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        for key, inner in value.items():
            assert key in schema or str in schema, f"no field {where}.{key}"
            check(inner, schema.get(key, schema.get(str)), f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for index, inner in enumerate(value):
            check(inner, schema[0], f"{where}[{index}]")
    elif isinstance(schema, set):
        assert value in schema, (where, value)
    else:
        assert type(value) is schema, (where, value)  # a bool is an int, too


def manifest():
    """The objects of the manifest by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(text(MANIFEST))}


def pod():
    """What the manifest says of the pod, and of its container."""
    spec = manifest()["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def recipe_of_manifest():
    """The manifest's container as a recipe."""
    spec, container = pod()
    context = container["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"] and context["seccompProfile"] == {"type": "RuntimeDefault"}
    return Recipe(
        network="host" if spec["hostNetwork"] else "pod",
        user=(context["runAsUser"], context["runAsGroup"]),
        read_only=context["readOnlyRootFilesystem"],
        capabilities=set(context["capabilities"]["add"]),
        no_new_privileges=not context["allowPrivilegeEscalation"],
        sysctls={},
        volumes={mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]},
        published=[],
        arguments=container["args"],
    )


@test
def the_manifest_has_only_fields_that_there_are():
    objects = manifest()
    assert set(objects) == set(OBJECTS), set(objects)
    for kind, value in objects.items():
        check(value, OBJECTS[kind], kind)


@test
def the_manifest_fits_together():
    daemon_set = manifest()["DaemonSet"]
    spec, container = pod()
    assert daemon_set["metadata"]["namespace"] == manifest()["Namespace"]["metadata"]["name"]
    assert daemon_set["spec"]["selector"]["matchLabels"] == daemon_set["spec"]["template"]["metadata"]["labels"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    (port,) = container["ports"]
    assert port["containerPort"] == port["hostPort"] == 69 and port["protocol"] == "UDP", port
    version = re.search(r'^version = "(.*)"', text(f"{REPOSITORY}/Cargo.toml"), re.MULTILINE)[1]
    assert container["image"] == f"r-tftpd:{version}", container["image"]
    drain = int(container["args"][container["args"].index("--drain-timeout") + 1])
    assert spec["terminationGracePeriodSeconds"] > drain


@test
def the_manifest_and_the_first_command_grant_the_same():
    first, other = commands()[0], recipe_of_manifest()
    for field in ("network", "user", "read_only", "capabilities", "no_new_privileges", "volumes"):
        assert getattr(first, field) == getattr(other, field), field
    assert first.capabilities == {"NET_BIND_SERVICE", "SETUID", "SETGID", "SETPCAP"}, first


# ---- running it ----


def seccomp(without=()):
    """Podman's default profile for the capabilities of the recipes, in the form that crun reads."""
    profile = json.loads(text(PROFILE))
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    calls = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        # No recipe has one of the capabilities that profiles ask for.
        if includes.get("caps") or machine in excludes.get("arches", ()):
            continue
        if "arches" in includes and machine not in includes["arches"]:
            continue
        names = [name for name in rule["names"] if name not in without]
        optional = {key: rule[key] for key in ("args", "errnoRet") if rule.get(key)}
        calls.append({"names": names, "action": rule["action"], **optional})
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_" + platform.machine().upper()],
        "syscalls": calls,
    }


def configuration(recipe, network, volumes, seccomp_profile):
    """The runtime's configuration for a recipe, as engines write it. In `volumes`, what is mounted where."""
    made = image()
    readable = [] if "--log-format" in recipe.arguments else ["--log-format", "json"]
    user = recipe.user or tuple(map(int, made.config["User"].split(":")))
    granted = sorted(f"CAP_{name}" for name in recipe.capabilities)
    # Engines give an ordinary user none, and let it have those of files.
    effective = granted if user[0] == 0 else []
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    ]
    for target, source in volumes.items():
        options = ["rbind", "ro" if recipe.volumes.get(target, True) else "rw"]
        mounts.append({"destination": target, "type": "bind", "source": source, "options": options})
    spaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user[0], "gid": user[1]},
            "args": [*made.config["Entrypoint"], *recipe.arguments, *readable],
            "env": made.config["Env"],
            "cwd": "/",
            "capabilities": {"bounding": granted, "effective": effective, "permitted": effective},
            "noNewPrivileges": recipe.no_new_privileges,
        },
        "root": {"path": made.root, "readonly": recipe.read_only},
        "mounts": mounts,
        "linux": {
            "namespaces": [*spaces, {"type": "network", "path": f"/run/netns/{network}"}],
            "sysctl": recipe.sysctls,
            "seccomp": seccomp_profile,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


class Bundle:
    """A container that can be started; its content has a file and a link to an origin in the client's network."""

    def __init__(self, stack, recipe, network, profile=None):
        home = stack.enter_context(directory())
        for name in ("content", "cache", "bundle", "state"):
            os.mkdir(f"{home}/{name}", 0o755)
        write(f"{home}/content/file", CONTENTS)
        os.symlink("http://origin/", f"{home}/content/link")
        write(f"{home}/hosts", b"10.99.0.2 origin\n")
        # As an engine makes a volume from the image, or Kubernetes an emptyDir.
        os.chown(f"{home}/cache", 990, 990)
        os.chmod(f"{home}/cache", 0o700 if recipe.user is None else 0o777)
        volumes = {"/srv/tftp": f"{home}/content", "/var/cache/r-tftpd": f"{home}/cache"}
        assert set(recipe.volumes) == set(volumes), recipe.volumes
        volumes["/etc/hosts"] = f"{home}/hosts"
        self.content = f"{home}/content"
        config = configuration(recipe, network, volumes, profile or seccomp())
        write(f"{home}/bundle/config.json", json.dumps(config).encode())
        self.id = f"r-tftpd-{os.getpid()}"
        self.crun = ["crun", "--cgroup-manager", "disabled", "--root", f"{home}/state"]
        self.pid_file = f"{home}/pid"
        # crun knows no machine with both kinds of control groups, and none are asked for: it shall see none.
        hide = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
        run_it = [*self.crun, "run", "--pid-file", self.pid_file, "--bundle", f"{home}/bundle", self.id]
        self.run = ["unshare", "--mount", "sh", "-c", hide, "sh", *run_it]


class Container(Daemon):
    """A container that serves."""

    def __init__(self, stack, recipe, network, profile=None):
        self.bundle = Bundle(stack, recipe, network, profile)
        # What Daemon adds is the image's and the recipe's to say, here.
        super().__init__("", prefix=["sh", "-c", f"exec {shlex.join(self.bundle.run)}", "sh"])
        self.process.terminate = lambda: run([*self.bundle.crun, "kill", self.bundle.id, "TERM"])

    def processes(self):
        """Process ids by name, as the host sees them."""
        first = int(text(self.bundle.pid_file))
        found = {"r-tftpd": first}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                name, parent = re.search(r"\((.*)\) \S (\d+)", text(f"/proc/{entry}/stat")).groups()
                if int(parent) == first:
                    found[name] = int(entry)
        return found


@contextlib.contextmanager
def world():
    """Namespaces of host and client, where an ordinary user may not bind port 69; an origin at the client."""
    with namespaces() as (server, client, name), directory() as there:
        run([*server, *RESERVE])
        write(f"{there}/image", CONTENTS)
        command = [*client, sys.executable, "-m", "http.server", "--directory", there, "--bind", "10.99.0.2", "80"]
        origin = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + DEADLINE
            while b":80 " not in run([*client, "ss", "-Hltn"]):
                assert time.monotonic() < end, "no origin"
                time.sleep(0.05)
            yield server, client, name
        finally:
            origin.kill()
            origin.wait()


def assert_serves(client, host="10.99.0.1"):
    """A file, and one that is proxied, over port 69."""
    for file in ("file", "link/image"):
        answer = get(host, 69, file, "blksize=1428", "windowsize=8", prefix=client)
        assert answer["sha256"] == sha256(CONTENTS), (file, answer)
        assert answer["tid"] == host, answer


def assert_confined(container):
    """Nobody is root or has a right left, in the image's own user, behind the engine's seccomp and its own."""
    container.assert_unprivileged()
    for name in NAMES:
        status = container.status(name)
        assert set(status["Uid"].split() + status["Gid"].split()) == {"990"}, status
        assert status["Seccomp"] == "2" and int(status["CapBnd"], 16) == 0, status
    filters = [int(container.status(name)["Seccomp_filters"]) for name in NAMES]
    assert min(filters[1:]) > filters[0] >= 1, filters
    fields = container.wait_for(lambda r: r["fields"]["message"] == "serving")["fields"]
    assert fields["landlock"] != "none" and fields["cache"] == "/var/cache/r-tftpd", fields
    assert fields["paths"] == "openat2", fields


def refusal(recipe, network, profile=None):
    """The line with which it refuses to start."""
    with contextlib.ExitStack() as stack:
        bundle = Bundle(stack, recipe, network, profile)
        done = subprocess.run(bundle.run, capture_output=True, timeout=DEADLINE, text=True, check=False)
        assert done.returncode == 1, (done.returncode, done.stderr)
        return done.stderr


@test
def started_as_root_in_the_network_of_the_host_it_serves_and_drops_every_right():
    with world() as (_, client, name), contextlib.ExitStack() as stack:
        recipe = commands()[0]
        assert recipe.network == "host" and recipe.user == (0, 0) and not recipe.sysctls
        with Container(stack, recipe, name) as container:
            assert_serves(client)
            assert_serves(client, "fd99::1")
            assert_confined(container)


@test
def started_as_root_it_needs_each_of_its_capabilities_but_one():
    with world() as (_, client, name), contextlib.ExitStack() as stack:
        recipe = commands()[0]
        for capability, word in (("NET_BIND_SERVICE", "port 69"), ("SETUID", "setresuid"), ("SETGID", "setgroups")):
            less = dataclasses.replace(recipe, capabilities=recipe.capabilities - {capability})
            line = refusal(less, name)
            assert word in line, (capability, line)
        less = dataclasses.replace(recipe, capabilities=recipe.capabilities - {"SETPCAP"})
        with Container(stack, less, name) as container:
            assert_serves(client)
            container.assert_unprivileged()


@test
def in_a_network_of_its_own_it_is_never_root():
    with world() as (_, client, name), contextlib.ExitStack() as stack:
        recipe = commands()[1]
        assert recipe.network != "host" and recipe.user is None and not recipe.capabilities
        assert recipe.sysctls == {"net.ipv4.ip_unprivileged_port_start": "69"}
        assert "port 69" in refusal(dataclasses.replace(recipe, sysctls={}), name)
        with Container(stack, recipe, name) as container:
            assert_serves(client)
            assert_serves(client, "fd99::1")
            assert_confined(container)


# What an engine sets up for published ports: requests are translated to the container, answers by
# the rule for all that leaves it, and nothing else passes.
PUBLISHED = """
table ip engine {{
  chain in {{ type nat hook prerouting priority -100; iif s0 udp dport {{ {ports} }} dnat to 172.31.0.2; }}
  chain out {{ type nat hook postrouting priority 100; ip saddr 172.31.0.0/24 oif != "b0" masquerade; }}
  chain pass {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iif "b0" accept
    oif "b0" udp dport {{ {ports} }} accept
  }}
}}
"""


@test
def behind_published_ports_and_the_nat_of_the_kernel_it_serves():
    with world() as (server, client, name), contextlib.ExitStack() as stack:
        recipe = commands()[2]
        ports = [port.removesuffix("/udp").split(":") for port in recipe.published]
        assert all(outside == inside for outside, inside in ports), ports
        box = f"{name}-box"
        run(["ip", "netns", "add", box])
        stack.callback(run, ["ip", "netns", "delete", box])
        run(["ip", "-n", name, "link", "add", "b0", "type", "veth", "peer", "e0", "netns", box])
        for space, device, address in ((name, "b0", "172.31.0.1/24"), (box, "e0", "172.31.0.2/24")):
            run(["ip", "-n", space, "address", "add", address, "dev", device])
            run(["ip", "-n", space, "link", "set", device, "up"])
        run(["ip", "-n", box, "route", "add", "default", "via", "172.31.0.1"])
        run([*server, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        with Container(stack, recipe, box) as container:
            first, last = map(int, ports[1][0].split("-"))
            # Port 69 alone suffices here, and does not where the engine translates in another way.
            for published in (ports, ports[:1]):
                rules = PUBLISHED.format(ports=", ".join(outside for outside, _ in published))
                run([*server, "nft", "-f", "-"], input=rules.encode())
                assert_serves(client)
                # A host's second address is asked, and the first one answers: most clients drop that.
                assert get("10.99.0.5", 69, "file", prefix=client)["tid"] == "10.99.0.1"
                run([*server, "nft", "delete", "table", "ip", "engine"])
            assert first <= int(container.request("file")["local"].rsplit(":", 1)[1]) <= last
            assert_confined(container)


@test
def as_the_kubernetes_manifest_says_it_serves_and_drops_every_right():
    with world() as (_, client, name), contextlib.ExitStack() as stack:
        with Container(stack, recipe_of_manifest(), name) as container:
            assert_serves(client)
            assert_confined(container)


@test
def under_a_seccomp_profile_without_landlock_it_refuses_to_start_and_says_why():
    with world() as (_, _, name):
        without = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
        line = refusal(commands()[0], name, seccomp(without))
        assert "no Landlock" in line and "--sandbox best-effort" in line, line


@test
def under_a_seccomp_profile_without_openat2_it_walks():
    with world() as (_, client, name), contextlib.ExitStack() as stack:
        with Container(stack, commands()[0], name, seccomp(("openat2",))) as container:
            assert_serves(client)
            fields = container.wait_for(lambda r: r["fields"]["message"] == "serving")["fields"]
            assert fields["paths"] == "walk", fields


with STACK:
    main()
