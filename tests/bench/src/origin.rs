//! The HTTP server behind proxied files: `r-tftpd-origin ADDRESS:PORT` serving the current
//! directory. GET only, a thread for each connection; what it says is fresh for an hour.

use std::fs::File;
use std::io::{BufRead, BufReader, Result, Write, copy};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path};
use std::thread;

fn main() {
    let address = std::env::args()
        .nth(1)
        .expect("usage: r-tftpd-origin ADDRESS:PORT");
    let listener = TcpListener::bind(address).expect("bind");
    for stream in listener.incoming().flatten() {
        // A connection that breaks is the other side's matter.
        thread::spawn(move || answer(stream));
    }
}

/// One request after another, until the connection is closed.
fn answer(mut stream: TcpStream) -> Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if requests.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        while line.trim_end() != "" {
            line.clear();
            requests.read_line(&mut line)?;
        }
        let path = Path::new(path.trim_start_matches('/'));
        let is_below = path
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        match File::open(path) {
            Ok(mut file) if is_below => {
                let length = file.metadata()?.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\
                     Cache-Control: max-age=3600\r\nETag: \"{length}\"\r\n\r\n"
                )?;
                copy(&mut file, &mut stream)?;
            }
            _ => write!(
                stream,
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            )?,
        }
    }
}
