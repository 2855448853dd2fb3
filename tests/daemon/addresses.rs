//! IPv4, IPv6, both on one socket, several addresses, reply ports.

use std::net::{IpAddr, SocketAddr};

use r_tftpd_test_support::client::Client;

use crate::{root_with_file, serve};

#[test]
fn ipv6_is_served() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &["--listen", "::1"]);
    assert!(daemon.address().is_ipv6());
    let options = [("blksize", "1228"), ("windowsize", "4")];
    let transfer = Client::new(daemon.address()).get("file", &options).unwrap();
    assert_eq!(transfer.bytes, contents);
    let record = daemon.wait_for_request("file");
    assert!(
        record["fields"]["peer"]
            .as_str()
            .unwrap()
            .starts_with("[::1]:"),
        "{record}"
    );
}

#[test]
fn one_socket_serves_both_families_and_answers_in_that_of_the_client() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &["--listen", "::"]);
    let port = daemon.address().port();
    for ip in ["127.0.0.1", "::1"] {
        let server = SocketAddr::new(ip.parse().unwrap(), port);
        let mut client = Client::new(server);
        assert_eq!(client.get("file", &[]).unwrap().bytes, contents);
        assert_eq!(client.tid().ip(), server.ip());
        let peer = client.address().to_string();
        let record = daemon.wait_for(|record| record["fields"]["peer"] == *peer);
        let local: SocketAddr = record["fields"]["local"].as_str().unwrap().parse().unwrap();
        assert_eq!(local.ip(), server.ip());
    }
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    let (root, contents) = root_with_file(10_000);
    let daemon = serve(&root, &["--listen", "0.0.0.0"]);
    for ip in ["127.0.0.1", "127.0.0.2", "127.77.0.9"] {
        let server = SocketAddr::new(ip.parse().unwrap(), daemon.address().port());
        let mut client = Client::new(server);
        assert_eq!(client.get("file", &[]).unwrap().bytes, contents);
        assert_eq!(client.tid().ip(), server.ip());
    }
}

#[test]
fn several_addresses_are_listened_on() {
    let (root, contents) = root_with_file(600);
    let daemon = serve(
        &root,
        &[
            "--listen",
            "127.0.0.1",
            "--listen",
            "127.0.0.3",
            "--listen",
            "::1",
        ],
    );
    assert_eq!(daemon.addresses().len(), 3);
    for server in daemon.addresses() {
        assert_eq!(
            Client::new(*server).get("file", &[]).unwrap().bytes,
            contents
        );
    }
}

#[test]
fn several_clients_behind_one_address_are_told_apart_by_their_port() {
    let (root, contents) = root_with_file(5000);
    let daemon = serve(&root, &[]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::new(daemon.address())).collect();
    for client in &mut clients {
        client.ask("file", &[]);
    }
    for client in clients.iter_mut().rev() {
        assert_eq!(
            client.get_what_was_asked("file", &[]).unwrap().bytes,
            contents
        );
    }
}

#[test]
fn with_a_port_range_answers_come_from_it() {
    let (root, contents) = root_with_file(600);
    // Free a moment ago: no port is reserved for tests.
    let free = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let range = format!("{free}-{}", free.saturating_add(20));
    let daemon = serve(&root, &["--port-range", &range]);
    for _ in 0..5 {
        let mut client = Client::new(daemon.address());
        assert_eq!(client.get("file", &[]).unwrap().bytes, contents);
        assert!((free..=free.saturating_add(20)).contains(&client.tid().port()));
    }
}

#[test]
fn only_allowed_networks_are_answered() {
    let (root, contents) = root_with_file(600);
    let arguments = [
        "--listen",
        "0.0.0.0",
        "--allow-net",
        "127.0.0.0/30",
        "--deny-net",
        "127.0.0.2/32",
    ];
    let daemon = serve(&root, &arguments);
    let from = |ip: &str| {
        let ip: IpAddr = ip.parse().unwrap();
        let server = SocketAddr::new("127.0.0.1".parse().unwrap(), daemon.address().port());
        Client::from_address(SocketAddr::new(ip, 0), server)
    };
    let mut refused = [from("127.0.0.2"), from("127.0.0.4")];
    for client in &refused {
        client.ask("file", &[]);
    }
    assert_eq!(from("127.0.0.3").get("file", &[]).unwrap().bytes, contents);
    for client in &mut refused {
        assert_eq!(
            client.receive_within(std::time::Duration::from_millis(50)),
            None
        );
    }
}
