//! Names to addresses: the hosts file first, then DNS over TCP and nothing else.
//!
//! Never a UDP socket, never a name server that resolv.conf does not name. Both files are bytes
//! that were read before the lock-down.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::time::timeout;
use tracing::{error, warn};

/// A name that did not become an address.
#[derive(Debug)]
pub(super) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The resolver that the HTTP client asks.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Inner>);

struct Inner {
    dns: TokioResolver,
    hosts: Hosts,
    servers: String,
    /// Longest time for one name.
    patience: Duration,
    /// The line on name servers without TCP was written.
    warned: AtomicBool,
}

impl Resolver {
    /// Built from the content of resolv.conf and hosts; `port` is the name servers' port. A name
    /// takes at most three quarters of `connect_timeout`, so that it can fail as what it is.
    ///
    /// # Errors
    /// A resolver that hickory refuses to build.
    pub(super) fn new(
        resolv_conf: &[u8],
        hosts: &[u8],
        port: u16,
        connect_timeout: Duration,
    ) -> Result<Self, NetError> {
        let (servers, config, mut options) = settings(resolv_conf, port);
        options.use_hosts_file = ResolveHosts::Never;
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        *builder.options_mut() = options;
        let mut parsed = Hosts::default();
        if let Err(reason) = parsed.read_hosts_conf(hosts) {
            warn!(%reason, "hosts file not read to its end");
        }
        let servers: Vec<String> = servers.iter().map(|ip| ip.to_string()).collect();
        let (servers, warned) = (servers.join(", "), AtomicBool::new(false));
        let patience = connect_timeout * 3 / 4;
        let dns = builder.build()?;
        Ok(Self(Arc::new(Inner {
            dns,
            hosts: parsed,
            servers,
            patience,
            warned,
        })))
    }
}

/// Name servers, all of them over TCP alone, and how to ask them.
fn settings(resolv_conf: &[u8], port: u16) -> (Vec<IpAddr>, ResolverConfig, ResolverOpts) {
    let (domain, search, servers, options) = match parse_resolv_conf(resolv_conf) {
        Ok((config, options)) => {
            let (domain, search, servers) = config.into_parts();
            let servers = servers.into_iter().map(|server| server.ip).collect();
            (domain, search, servers, options)
        }
        // resolv.conf(5): without a name server, the one on the local machine.
        Err(reason) => {
            warn!(%reason, "resolv.conf names no name server: asking the one on this machine");
            (
                None,
                Vec::new(),
                vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
                ResolverOpts::default(),
            )
        }
    };
    let mut seen: Vec<IpAddr> = Vec::new();
    for server in servers {
        if !seen.contains(&server) {
            seen.push(server);
        }
    }
    let over_tcp = seen.iter().map(|ip| {
        let mut connection = ConnectionConfig::tcp();
        connection.port = port;
        NameServerConfig::new(*ip, true, vec![connection])
    });
    let config = ResolverConfig::from_parts(domain, search, over_tcp.collect());
    (seen, config, options)
}

impl Inner {
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let listed = self.listed(name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let found = timeout(self.patience, self.dns.lookup_ip(name)).await;
        match found.unwrap_or(Err(NetError::Timeout)) {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) => {
                self.warn_once(&error);
                Err(Error(format!("{name}: {error}")))
            }
        }
    }

    /// Addresses of the hosts file. Those of one family are enough: no name server is asked for
    /// the other.
    fn listed(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_str(name) else {
            return Vec::new();
        };
        let lookup = |kind| {
            self.hosts
                .lookup_static_host(&Query::query(name.clone(), kind))
        };
        let found = [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(lookup);
        let mut addresses = Vec::new();
        for lookup in found {
            addresses.extend(
                lookup
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr()),
            );
        }
        addresses
    }

    /// Says it once, and clearly, when no name server can be reached: most often it answers over
    /// UDP alone.
    fn warn_once(&self, error: &NetError) {
        let unreachable = matches!(
            error,
            NetError::Io(_) | NetError::Timeout | NetError::NoConnections | NetError::Busy
        );
        if unreachable && !self.warned.swap(true, Ordering::Relaxed) {
            error!(
                servers = self.servers,
                reason = %error,
                "no name server answers over TCP, and the proxy asks in no other way: let one of \
                 them listen on TCP, or list the hosts in /etc/hosts"
            );
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses = inner.addresses(name.as_str()).await?;
            // Port 0: the client puts in the one of the URL.
            let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::config::ProtocolConfig;

    #[test]
    fn every_name_server_is_asked_over_tcp_alone() {
        let text = b"nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.1\n\
            search a.test b.test\noptions ndots:2 timeout:3 attempts:4 use-vc\n";
        let (servers, config, options) = settings(text, 53);
        assert_eq!(servers.len(), 2);
        assert_eq!(config.name_servers().len(), 2);
        for server in config.name_servers() {
            let [connection] = &server.connections[..] else {
                panic!("one connection")
            };
            assert!(matches!(connection.protocol, ProtocolConfig::Tcp));
            assert_eq!(connection.port, 53);
        }
        assert_eq!(
            (config.search().len(), options.ndots, options.attempts),
            (2, 2, 4)
        );
    }

    #[test]
    fn without_a_name_server_it_is_the_local_machine_never_a_public_one() {
        for text in [
            &b""[..],
            b"# none\n",
            b"nameserver x\n",
            b"\xff\xfe",
            b"search a.test\n",
        ] {
            let (servers, config, _) = settings(text, 53);
            assert_eq!(servers, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            assert_eq!(config.name_servers().len(), 1);
        }
    }

    #[tokio::test]
    async fn the_hosts_file_comes_first_and_needs_no_name_server() {
        let hosts = b"192.0.2.7 Boot.Test alias # c\n2001:db8::7 boot.test\n# x\nbad line\n";
        let resolver =
            Resolver::new(b"nameserver 127.0.0.1\n", hosts, 9, Duration::from_secs(1)).unwrap();
        let found = resolver.0.addresses("boot.test").await.unwrap();
        assert_eq!(found.len(), 2);
        let found = resolver.0.addresses("ALIAS").await.unwrap();
        assert_eq!(found, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn name_servers_without_tcp_are_named_once() {
        // A port that was free a moment ago.
        let gone = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let text = b"nameserver 127.0.0.1\noptions attempts:1 timeout:1\n";
        let resolver = Resolver::new(text, b"", gone.port(), Duration::from_secs(5)).unwrap();
        assert_eq!(resolver.0.servers, "127.0.0.1");
        assert!(!resolver.0.warned.load(Ordering::Relaxed));
        assert!(resolver.0.addresses("boot.test").await.is_err());
        assert!(resolver.0.warned.load(Ordering::Relaxed));
    }
}
