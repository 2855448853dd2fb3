"""What the SELinux policy allows, asked of the distribution's whole policy with ours linked into it.

No kernel with SELinux is needed: the module is compiled with the distribution's headers and linked, by
semodule into a store in a temporary directory, with all other modules of the distribution, and setools
answers from the result. Debian 12; see selinux/README.md for what this can not prove.

To be run with Debian's own interpreter (/usr/bin/python3), which has the module setools. Takes the
directory of the programs as its argument, as its neighbours do, but does not need them.
"""

import bz2
import concurrent.futures
import functools
import glob
import os
import re
import shutil
import subprocess
import tempfile

import setools
from support import cases, main, run, test

SELINUX = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "selinux")
DEVEL = "/usr/share/selinux/devel"
HLL = "/usr/libexec/selinux/hll/pp"  # from a compiled module to the common intermediate language

SUPERVISOR, BROKER, WORKER, FETCHER = DOMAINS = [
    "r_tftpd_t", "r_tftpd_broker_t", "r_tftpd_worker_t", "r_tftpd_fetcher_t",
]
PROGRAMS = {
    SUPERVISOR: "r_tftpd_exec_t",
    BROKER: "r_tftpd_broker_exec_t",
    WORKER: "r_tftpd_worker_exec_t",
    FETCHER: "r_tftpd_fetcher_exec_t",
}
CHILDREN = [BROKER, WORKER, FETCHER]
CONTENT = {"tftpdir_t", "tftpdir_rw_t", "public_content_t", "public_content_rw_t", "cobbler_var_lib_t"}
CACHE, MEMORY, UNIT = "r_tftpd_cache_t", "r_tftpd_tmpfs_t", "r_tftpd_unit_file_t"
FILES = {"file", "dir", "lnk_file", "chr_file", "blk_file", "fifo_file", "sock_file"}
PROXY, ANY_PORT, UPLOAD = "r_tftpd_proxy", "r_tftpd_proxy_any_port", "r_tftpd_upload"

# What refpolicy gives every domain: libraries, the devices that are no devices, a few numbers of the kernel.
COMMON_OPEN = {
    "ld_so_t", "ld_so_cache_t", "lib_t", "textrel_shlib_t", "cpu_online_t", "sysctl_crypto_t", "null_device_t",
    "zero_device_t", "devtty_t", "urandom_device_t", "setrans_runtime_t",
}
COMMON_WRITE = {"null_device_t", "zero_device_t", "devtty_t", "setrans_runtime_t"}
COMMON_EXECUTE = {"ld_so_t", "lib_t", "textrel_shlib_t"}

scratch = tempfile.TemporaryDirectory(prefix="r-tftpd-test-")


def at(name):
    """A path in the scratch directory."""
    return os.path.join(scratch.name, name)


# ---- building ----

def make(name, headers=f"{DEVEL}/include", local=None):
    """Compiles the module, or a local one beside it, in a directory: the path, and what make printed."""
    directory = at(name)
    os.mkdir(directory)
    for file in glob.glob(f"{SELINUX}/r_tftpd.*"):
        shutil.copy(file, directory)
    if local is not None:
        with open(f"{directory}/local.te", "w", encoding="ascii") as file:
            file.write(local)
    package = "r_tftpd.pp" if local is None else "local.pp"
    command = ["make", "-f", f"{DEVEL}/Makefile", f"HEADERDIR={headers}", package]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{directory}/{package}", done.stdout + done.stderr


@functools.cache
def module():
    """The module, compiled."""
    return make("module")


def to_cil(package, cil):
    """From a module, compressed or not, to the intermediate language."""
    with (bz2.open if package.endswith(".bz2") else open)(package, "rb") as file:
        run([HLL, "-", cil], input=file.read())


@functools.cache
def distribution():
    """The distribution's policy, unpacked and not installed: its directory, and its modules as CIL."""
    tree, modules = at("distribution"), at("modules")
    os.mkdir(at("download"))
    os.mkdir(modules)
    run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "selinux-policy-default"], cwd=at("download"))
    (package,) = glob.glob(at("download/*.deb"))
    run(["dpkg", "-x", package, tree])
    packages = glob.glob(f"{tree}/usr/share/selinux/default/*.pp.bz2")
    assert len(packages) > 300, packages
    names = [f"{modules}/{os.path.basename(package).removesuffix('.pp.bz2')}.cil" for package in packages]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(to_cil, packages, names))
    return tree, names


@functools.cache
def store():
    """A policy store with everything linked, every neverallow checked: the directory of its results."""
    tree, names = distribution()
    root = at("store")
    os.makedirs(f"{root}/var/lib/selinux")
    shutil.copytree(f"{tree}/etc/selinux", f"{root}/etc/selinux")
    with open(f"{root}/etc/selinux/semanage.conf", "w", encoding="ascii") as file:
        file.write("module-store = direct\nexpand-check = 1\n")
    run(["semodule", "-p", root, "-s", "default", "-n", "-X", "100", "-i", *names, "-X", "400", "-i", module()[0]])
    return f"{root}/etc/selinux/default"


# ---- asking ----

@functools.cache
def policy():
    """The linked policy."""
    (binary,) = glob.glob(f"{store()}/policy/policy.*")
    return setools.SELinuxPolicy(binary)


def expand(name):
    """The types that a type or an attribute stands for."""
    return [str(one) for one in name.expand()]


def when(rule):
    """The booleans a rule depends on; empty = it always holds."""
    try:
        return str(rule.conditional) if rule.conditional_block else f"not ({rule.conditional})"
    except setools.exception.RuleNotConditional:
        return ""


def ask(**criteria):
    """Allow rules, as (sources, targets, class, permissions, condition)."""
    query = setools.TERuleQuery(policy(), ruletype=["allow"], **criteria)
    return [(rule.source, rule.target, str(rule.tclass), rule.perms, when(rule)) for rule in query.results()]


@functools.cache
def rights(domain):
    """All that a domain may do: a set of (target, class, permission, condition)."""
    found = set()
    for source, target, tclass, permissions, condition in ask(source=domain, source_indirect=True):
        # `self` in a rule for an attribute comes out as a rule for each type.
        if domain in expand(source):
            for one in expand(target):
                found.update((one, tclass, permission, condition) for permission in permissions)
    assert len(found) > 100, f"{domain}: {found}"
    return found


def targets(domain, classes, permissions, conditions=None):
    """What a domain may do one of these to."""
    return {
        target
        for target, tclass, permission, condition in rights(domain)
        if tclass in classes and permission in permissions and (conditions is None or condition in conditions)
    }


def permissions(domain, target, tclass, conditions=("",)):
    """What a domain may do to one type."""
    return {
        permission
        for one, other, permission, condition in rights(domain)
        if (one, other) == (target, tclass) and condition in conditions
    }


def sources(target, tclass, permission):
    """Who may do this, with or without a boolean. Domains without confinement stand as one."""
    found = set()
    for source, others, _, _, _ in ask(target=target, target_indirect=True, tclass=[tclass], perms=[permission]):
        if target in expand(others):
            found.update(expand(source))
    unconfined = set(expand(policy().lookup_typeattr("unconfined_domain_type")))
    return found - unconfined


def attributes(name):
    """The attributes of a type, but for those the compiler makes for sets in rules."""
    found = {str(attribute) for attribute in policy().lookup_type(name).attributes()}
    return {attribute for attribute in found if not re.search(r"_typeattr_\d+$", attribute)}


def sockets():
    """All classes that are sockets."""
    found = {str(one) for one in policy().classes() if str(one).endswith("socket")}
    assert len(found) > 40, found
    return found


# ---- the module and its place ----

@test
def the_module_compiles_without_a_warning():
    assert not re.search("warning|error", module()[1], re.IGNORECASE), module()[1]


@test
def it_links_into_the_whole_policy_with_every_neverallow_checked():
    assert os.path.getsize(glob.glob(f"{store()}/policy/policy.*")[0]) > 1_000_000


@test
def a_rule_that_breaks_a_promise_is_not_linked():
    violations = [
        (WORKER, "tftpdir_t", "file", "open"),
        (WORKER, "public_content_t", "file", "execute"),
        (WORKER, "cobbler_var_lib_t", "dir", "search"),
        (WORKER, "tftpdir_t", "file", "write"),
        (WORKER, CACHE, "file", "write"),
        (WORKER, WORKER, "udp_socket", "create"),
        (WORKER, "bin_t", "file", "execute_no_trans"),
        (WORKER, SUPERVISOR, "process", "transition"),
        (WORKER, WORKER, "capability", "net_bind_service"),
        (FETCHER, FETCHER, "udp_socket", "create"),
        (FETCHER, "tftpdir_rw_t", "file", "read"),
        (FETCHER, CACHE, "file", "open"),
        (BROKER, BROKER, "tcp_socket", "create"),
        (BROKER, "tftp_port_t", "udp_socket", "name_bind"),
        (BROKER, CACHE, "dir", "add_name"),
        (SUPERVISOR, "tftpdir_t", "file", "open"),
        (SUPERVISOR, "r_tftpd_worker_exec_t", "file", "execute_no_trans"),
        (SUPERVISOR, "http_port_t", "tcp_socket", "name_connect"),
        (SUPERVISOR, SUPERVISOR, "capability", "net_admin"),
    ]
    _, names = distribution()
    to_cil(module()[0], at("module.cil"))
    with open(at("broken.cil"), "w", encoding="ascii") as file:
        file.writelines(f"(allow {a} {b} ({c} ({d})))\n" for a, b, c, d in violations)
    command = ["secilc", "-m", "-M", "true", "-o", "/dev/null", "-f", "/dev/null", *names, at("module.cil")]
    done = subprocess.run([*command, at("broken.cil")], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "neverallow check failed" in done.stderr, done.stderr
    found = re.findall(r"allow at \S*broken\.cil:(\d+)", done.stderr)
    missed = [one for number, one in enumerate(violations, 1) if str(number) not in found]
    assert not missed, f"{missed}\n{done.stderr}"


@test
def no_domain_is_permissive_or_unconfined():
    for domain in DOMAINS:
        assert not policy().lookup_type(domain).ispermissive, domain
        assert not [name for name in attributes(domain) if "unconfined" in name], attributes(domain)
    # Nothing but what every process has; `daemon`, which init's services have, is for the supervisor.
    for domain in CHILDREN:
        assert attributes(domain) == {"domain", "r_tftpd_domain", "r_tftpd_child"}, attributes(domain)


@test
def the_booleans_are_off_by_default():
    states = {str(boolean): boolean.state for boolean in policy().bools() if str(boolean).startswith("r_tftpd")}
    assert states == {PROXY: False, ANY_PORT: False, UPLOAD: False}, states


# ---- how a process gets into its domain ----

@cases("{0} is entered from {1}, also under no_new_privs", [
    (SUPERVISOR, "init_t"), (BROKER, SUPERVISOR), (WORKER, SUPERVISOR), (FETCHER, SUPERVISOR),
])
def transition(domain, origin):
    program = PROGRAMS[domain]
    query = setools.TERuleQuery(
        policy(), ruletype=["type_transition"], source=origin, source_indirect=True, target=program, tclass=["process"]
    )
    assert {str(rule.default) for rule in query.results()} == {domain}
    assert "transition" in permissions(origin, domain, "process")
    assert {"nnp_transition", "nosuid_transition"} <= permissions(origin, domain, "process2")
    assert {"execute", "read", "getattr"} <= permissions(origin, program, "file")
    assert "entrypoint" in permissions(domain, program, "file")


@test
def nobody_else_starts_a_broker_worker_or_fetcher():
    for domain in CHILDREN:
        for permission in ("transition", "dyntransition"):
            expected = {SUPERVISOR} if permission == "transition" else set()
            assert sources(domain, "process", permission) == expected, (domain, permission)


@test
def each_domain_is_entered_by_its_own_program_and_no_other():
    for domain, program in PROGRAMS.items():
        assert targets(domain, {"file"}, {"entrypoint"}) == {program}, domain
        assert sources(program, "file", "entrypoint") == {domain}, program


@test
def only_the_supervisor_starts_programs_and_only_ours():
    for domain in CHILDREN:
        assert targets(domain, {"process"}, {"transition", "dyntransition"}) == set(), domain
        assert targets(domain, {"file"}, {"execute_no_trans"}) == set(), domain
        assert targets(domain, FILES, {"execute"}) == {*COMMON_EXECUTE, PROGRAMS[domain]}, domain
        assert targets(domain, {"file"}, {"map"}) == {*COMMON_EXECUTE, "ld_so_cache_t", PROGRAMS[domain]}, domain
    assert targets(SUPERVISOR, {"process"}, {"transition", "dyntransition"}) == set(CHILDREN)
    assert targets(SUPERVISOR, {"file"}, {"execute_no_trans"}) == set()
    assert targets(SUPERVISOR, FILES, {"execute"}) == {*COMMON_EXECUTE, *PROGRAMS.values()}


@test
def limits_and_ignored_signals_outlive_the_exec_but_not_the_environment():
    for domain in CHILDREN:
        granted = permissions(SUPERVISOR, domain, "process")
        assert granted == {"transition", "rlimitinh", "siginh", "sigkill"}, (domain, granted)


@test
def no_process_reaches_into_another():
    reach = {"ptrace", "sigkill", "signal", "sigstop", "setsched", "setrlimit", "share", "getattr"}
    for domain in CHILDREN:
        assert targets(domain, {"process"}, reach) == {domain}, domain
        others = {target for target in targets(domain, {"file", "dir", "lnk_file"}, {"read", "search"})}
        assert not others & (set(DOMAINS) - {domain}), domain
    for domain in DOMAINS:
        inner = permissions(domain, domain, "process", ["", PROXY])
        assert not inner & {"ptrace", "execmem", "execstack", "execheap", "setexec", "setcurrent"}, (domain, inner)


# ---- files ----

@test
def the_worker_reads_content_by_descriptor_and_never_opens_maps_or_executes_it():
    for label in CONTENT:
        for tclass in FILES:
            expected = {"read", "getattr"} if tclass == "file" else set()
            assert permissions(WORKER, label, tclass) == expected, (label, tclass)


@test
def the_worker_opens_nothing_but_what_every_program_opens():
    assert targets(WORKER, FILES - {"dir"}, {"open"}) == {*COMMON_OPEN, WORKER}


@test
def the_fetcher_opens_nothing_but_what_every_program_opens():
    assert targets(FETCHER, FILES - {"dir"}, {"open"}) == {*COMMON_OPEN, FETCHER}


@test
def the_fetcher_has_no_right_on_content():
    granted = {right for right in rights(FETCHER) if right[0] in CONTENT}
    assert not granted, granted


@test
def the_supervisor_passes_directories_of_content_and_has_no_right_on_a_file():
    for label in CONTENT:
        assert permissions(SUPERVISOR, label, "dir") == {"getattr", "search"}, label
        for tclass in FILES - {"dir", "lnk_file"}:
            assert not permissions(SUPERVISOR, label, tclass, ["", PROXY, UPLOAD]), (label, tclass)


@test
def the_broker_opens_content_for_reading_only_and_lists_no_directory():
    for label in CONTENT:
        assert permissions(BROKER, label, "file") == {"open", "read", "getattr"}, label
        assert permissions(BROKER, label, "lnk_file") == {"read", "getattr"}, label
        assert permissions(BROKER, label, "dir") == {"search", "getattr", "ioctl"}, label


@test
def only_the_broker_opens_content():
    for domain in (SUPERVISOR, WORKER, FETCHER):
        assert not CONTENT & targets(domain, {"file"}, {"open"}), domain
    assert CONTENT <= targets(BROKER, {"file"}, {"open"})
    assert targets(BROKER, FILES - {"dir"}, {"open"}) == {*COMMON_OPEN, *CONTENT, CACHE, MEMORY, BROKER}


@test
def each_process_writes_only_where_it_must():
    writing = {"write", "append", "create", "setattr", "unlink", "rename", "link", "add_name", "remove_name"}

    def written(domain, conditions=("",)):
        found = targets(domain, FILES, writing, conditions)
        # Its own entries in /proc.
        return found - COMMON_WRITE - {domain}

    assert written(WORKER) == {MEMORY}
    assert written(FETCHER) == {CACHE, MEMORY}
    assert written(BROKER) == {CACHE, MEMORY}
    for domain in CHILDREN:
        conditional = {condition for _, _, _, condition in rights(domain)} - {""}
        expected = {"tftpdir_rw_t"} if domain != FETCHER else set()
        assert written(domain, conditional) == expected, domain
    for label in CONTENT:
        assert label not in written(SUPERVISOR), label
    # And what every service may write to that init starts: its pipes, terminals and memory files.
    of_init = {"init_t", "initrc_t", "init_tmpfs_t", "initrc_devpts_t", "nscd_runtime_t"}
    assert written(SUPERVISOR) - of_init == {CACHE, "init_runtime_t"}, written(SUPERVISOR)


@test
def cache_files_have_no_name_and_are_made_by_the_broker():
    for domain in (SUPERVISOR, BROKER):
        granted = permissions(domain, CACHE, "dir")
        assert {"search", "write"} <= granted and not granted & {"add_name", "remove_name", "read"}, granted
        assert permissions(domain, CACHE, "file") == {"open", "read", "write"}, domain
    assert permissions(WORKER, CACHE, "file") == {"read", "getattr"}
    assert permissions(FETCHER, CACHE, "file") == {"read", "write", "getattr"}
    for domain in (WORKER, FETCHER):
        assert not permissions(domain, CACHE, "dir"), domain


@test
def memory_files_get_a_label_of_their_own():
    for domain in (SUPERVISOR, BROKER):
        query = setools.TERuleQuery(
            policy(), ruletype=["type_transition"], source=domain, target="tmpfs_t", tclass=["file"]
        )
        assert {str(rule.default) for rule in query.results()} == {MEMORY}, domain


@test
def uploads_go_to_one_label_and_only_with_their_boolean():
    assert permissions(BROKER, "tftpdir_rw_t", "dir", [UPLOAD]) == {"write", "add_name"}
    assert permissions(BROKER, "tftpdir_rw_t", "file", [UPLOAD]) == {"write", "link"}
    assert permissions(WORKER, "tftpdir_rw_t", "file", [UPLOAD]) == {"write"}
    with_boolean = {(d, right[0]) for d in DOMAINS for right in rights(d) if right[3] == UPLOAD}
    assert with_boolean == {(BROKER, "tftpdir_rw_t"), (WORKER, "tftpdir_rw_t")}, with_boolean


# ---- sockets ----

@test
def the_worker_makes_no_socket_of_any_network():
    # Every domain may make the one kind, to ask mcstransd for the readable form of a label.
    assert {right[1] for right in rights(WORKER) if right[1] in sockets() and right[2] == "create"} == {
        "unix_stream_socket"
    }
    assert targets(WORKER, {"unix_stream_socket"}, {"connectto"}) == {"setrans_t"}


@test
def the_worker_binds_and_connects_nothing():
    network = sockets() - {"unix_stream_socket"}
    denied = {"create", "bind", "connect", "listen", "accept", "name_bind", "name_connect", "node_bind", "sendto"}
    assert targets(WORKER, network, denied) == set()
    assert targets(WORKER, sockets(), {"name_bind", "name_connect", "node_bind"}) == set()


@test
def the_worker_uses_the_sockets_of_the_broker_and_no_others():
    assert permissions(WORKER, BROKER, "udp_socket") == {"read", "write", "setopt"}
    assert targets(WORKER, {"udp_socket"}, {"read", "write"}) == {BROKER}
    assert targets(WORKER, {"unix_stream_socket"}, {"read", "write"}) == {WORKER, SUPERVISOR, "init_t"}


@test
def the_fetcher_has_no_udp_socket():
    assert not {right for right in rights(FETCHER) if right[1] == "udp_socket" and right[2] != "recvfrom"}
    made = {(right[1], right[3]) for right in rights(FETCHER) if right[1] in sockets() and right[2] == "create"}
    assert made == {("unix_stream_socket", ""), ("tcp_socket", PROXY)}, made
    assert targets(FETCHER, sockets(), {"name_bind", "node_bind"}) == set()


@test
def the_fetcher_connects_only_with_its_booleans():
    connects = {(r[0], r[3]) for r in rights(FETCHER) if r[1] == "tcp_socket" and r[2] == "name_connect"}
    assert {port for port, condition in connects if condition == PROXY} == {
        "http_port_t", "http_cache_port_t", "dns_port_t",
    }
    others = {condition for _, condition in connects} - {PROXY}
    assert len(others) == 1, others
    (both,) = others
    assert set(re.findall(r"\w+", both)) == {PROXY, ANY_PORT} and "&&" in both, both
    everything = set(expand(policy().lookup_typeattr("port_type")))
    assert {port for port, condition in connects if condition == both} == everything
    own = {r for r in rights(FETCHER) if r[0] == FETCHER and r[1] == "tcp_socket"}
    assert {condition for _, _, _, condition in own} == {PROXY}, own


@test
def nobody_else_uses_tcp():
    for domain in (SUPERVISOR, BROKER, WORKER):
        denied = {"create", "connect", "bind", "listen", "accept", "name_bind", "name_connect"}
        # init lets every service use TCP sockets that it was handed.
        assert targets(domain, {"tcp_socket"}, denied) == set(), domain


@test
def the_supervisor_binds_the_tftp_port_and_nobody_else():
    assert targets(SUPERVISOR, sockets(), {"name_bind"}) == {"tftp_port_t"}
    for domain in CHILDREN:
        assert targets(domain, sockets(), {"name_bind"}) == set(), domain
    # systemd makes the socket, and labels it as the service that it is for.
    assert {"create", "bind", "setopt"} <= permissions("init_t", SUPERVISOR, "udp_socket")


@test
def the_broker_makes_udp_sockets_only():
    made = {right[1] for right in rights(BROKER) if right[1] in sockets() and right[2] == "create"}
    assert made == {"unix_stream_socket", "udp_socket"}, made
    made = {"create", "bind", "connect", "getattr", "getopt", "setopt"}
    # No write: it sends nothing to clients.
    assert permissions(BROKER, BROKER, "udp_socket") == made | {"read"}
    assert permissions(BROKER, SUPERVISOR, "udp_socket") == {"read", "write"}


# ---- rights of other kinds ----

@test
def capabilities_are_the_four_that_the_supervisor_gives_up():
    classes = {"capability", "capability2", "cap_userns", "cap2_userns"}
    for domain in CHILDREN:
        assert not [right for right in rights(domain) if right[1] in classes], domain
    held = {right[2] for right in rights(SUPERVISOR) if right[1] in classes}
    assert held == {"net_bind_service", "setuid", "setgid", "setpcap"}, held


@test
def descriptors_come_from_above_only():
    def givers(domain):
        # What every domain may use is of no interest here.
        return targets(domain, {"fd"}, {"use"}) & {*DOMAINS, "init_t", "unconfined_t", "sshd_t"}

    assert givers(BROKER) == {SUPERVISOR, "init_t"}
    assert givers(WORKER) == {SUPERVISOR, BROKER, "init_t"}
    assert givers(FETCHER) == {SUPERVISOR, BROKER, "init_t"}
    assert WORKER not in givers(SUPERVISOR) and FETCHER not in givers(SUPERVISOR)


@test
def nobody_asks_the_security_server_loads_policy_or_talks_to_the_bus():
    for domain in CHILDREN:
        classes = {right[1] for right in rights(domain)}
        assert not classes & {"security", "dbus", "passwd", "system", "key", "bpf", "perf_event", "user_namespace"}, (
            domain, classes,
        )
        assert not targets(domain, {"service"}, {"start", "stop"}), domain


@test
def a_local_module_can_use_the_interfaces():
    local = """
policy_module(local, 1.0)
gen_require(`
	type sysadm_t;
')
type images_t;
files_type(images_t)
r_tftpd_content(images_t)
r_tftpd_admin(sysadm_t)
r_tftpd_domtrans(sysadm_t)
"""
    package, printed = make("local", local=local)
    assert not re.search("warning|error", printed, re.IGNORECASE), printed
    to_cil(package, at("local.cil"))
    with open(at("local.cil"), encoding="ascii") as file:
        assert "(typeattributeset r_tftpd_content_type (images_t " in file.read()


# ---- labels ----

@cases("{0} is {1}", [
    ("/usr/sbin/r-tftpd", "r_tftpd_exec_t"),
    ("/usr/bin/r-tftpd", "r_tftpd_exec_t"),
    ("/usr/libexec/r-tftpd/r-tftpd-broker", "r_tftpd_broker_exec_t"),
    ("/usr/libexec/r-tftpd/r-tftpd-worker", "r_tftpd_worker_exec_t"),
    ("/usr/libexec/r-tftpd/r-tftpd-fetcher", "r_tftpd_fetcher_exec_t"),
    ("/usr/bin/r-tftpd-worker", "r_tftpd_worker_exec_t"),
    ("/usr/sbin/r-tftpd-broker", "r_tftpd_broker_exec_t"),
    ("/usr/libexec/r-tftpd/other", "bin_t"),
    ("/srv/tftp", "tftpdir_t"),
    ("/srv/tftp/grub/grubx64.efi", "tftpdir_t"),
    ("/srv/tftpd", "var_t"),
    ("/tftpboot/pxelinux.0", "tftpdir_t"),
    ("/var/lib/tftpboot/file", "tftpdir_rw_t"),
    ("/var/lib/tftpboot/pxelinux.0", "cobbler_var_lib_t"),
    ("/var/lib/tftpboot/pxelinux.cfg/default", "cobbler_var_lib_t"),
    ("/var/cache/r-tftpd", CACHE),
    ("/var/cache/r-tftpd/file", CACHE),
    ("/var/cache/private/r-tftpd", CACHE),
    ("/usr/lib/systemd/system/r-tftpd.service", UNIT),
    ("/lib/systemd/system/r-tftpd.socket", UNIT),
    ("/etc/systemd/system/r-tftpd-standalone.service", UNIT),
])
def label(path, expected):
    contexts = f"{store()}/contexts/files/file_contexts"
    found = run(["matchpathcon", "-n", "-f", contexts, path], text=True).strip()
    assert found == f"system_u:object_r:{expected}:s0", found


# ---- the other policy ----

# Names of interfaces and macros that Fedora's policy has, too; looked up in its sources.
IN_BOTH = {
    "policy_module", "gen_tunable", "gen_require", "optional_policy", "tunable_policy", "gen_context", "ifdef",
    "interface", "init_daemon_domain", "domain_base_type", "corecmd_executable_file", "files_type", "files_tmpfs_file",
    "corenet_udp_bind_generic_node", "corenet_udp_bind_tftp_port",
    "sysnet_read_config", "miscfiles_read_generic_certs", "corenet_tcp_connect_http_port",
    "corenet_tcp_connect_http_cache_port", "corenet_tcp_connect_dns_port", "corenet_sendrecv_tftp_server_packets",
    "corenet_sendrecv_http_client_packets", "corenet_sendrecv_http_cache_client_packets",
    "corenet_sendrecv_dns_client_packets", "domtrans_pattern", "ps_process_pattern",
}
OF_REFPOLICY, OF_FEDORA = "init_unit_file", "systemd_unit_file"


@test
def names_that_fedora_does_not_have_stand_behind_an_ifdef():
    used = set()
    for name in ("te", "if"):
        with open(f"{SELINUX}/r_tftpd.{name}", encoding="utf-8") as file:
            text = re.sub(r"^#.*", "", file.read(), flags=re.MULTILINE)
        used |= set(re.findall(r"\b([a-z]\w*)\(", text))
    ours = {name for name in used if name.startswith("r_tftpd_")}
    assert used - ours - IN_BOTH == {OF_REFPOLICY, OF_FEDORA}, used - ours - IN_BOTH


@test
def with_the_names_of_fedora_the_module_has_the_same_rules():
    headers = at("headers")
    shutil.copytree(f"{DEVEL}/include", headers)
    for path in glob.glob(f"{headers}/**/*.if", recursive=True):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if OF_REFPOLICY in text:
            with open(path, "w", encoding="utf-8") as file:
                file.write(re.sub(rf"\b{OF_REFPOLICY}\b", OF_FEDORA, text))
    other, printed = make("other", headers)
    assert not re.search("warning|error", printed, re.IGNORECASE), printed
    to_cil(module()[0], at("one.cil"))
    to_cil(other, at("other.cil"))
    one, two = (sorted(open(at(f"{name}.cil"), encoding="ascii")) for name in ("one", "other"))
    assert one == two


main()
