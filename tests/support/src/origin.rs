//! Origins: one that says byte by byte what a test wants, and one by hyper.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::DEADLINE;

/// A request's head: its first line and its headers, names in lower case.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method, path and version.
    pub line: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    /// What follows the method.
    #[must_use]
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| &value[..])
    }

    fn read(stream: &mut impl BufRead) -> Option<Self> {
        let mut line = || {
            let mut line = String::new();
            stream
                .read_line(&mut line)
                .ok()
                .filter(|length| *length > 0)?;
            Some(line.trim_end().to_owned())
        };
        let first = line()?;
        let mut headers = Vec::new();
        loop {
            let text = line()?;
            if text.is_empty() {
                return Some(Self {
                    line: first,
                    headers,
                });
            }
            let (name, value) = text.split_once(':')?;
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }
}

/// An origin whose answers are written by hand; it ends with the test's process, or before.
#[derive(Debug)]
pub struct Raw {
    /// Where it listens, on 127.0.0.1.
    pub address: SocketAddr,
    state: Arc<State>,
    accepts: JoinHandle<()>,
}

/// What has happened to an origin so far.
#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    asked: Vec<Asked>,
    /// Those that are open.
    connections: BTreeMap<SocketAddr, TcpStream>,
    stopped: bool,
}

impl Raw {
    /// `answer` gets each request, its number from 0 on, and the connection.
    pub fn new(answer: impl Fn(&Asked, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, answer) = (Arc::clone(&state), Arc::new(answer));
        let accepts = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if !shared.connected(&stream) {
                    break;
                }
                let (shared, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    let mut reader = BufReader::new(stream);
                    while let Some(asked) = Asked::read(&mut reader) {
                        answer(&asked, shared.asked(&asked), &mut writer);
                    }
                    shared.ended(&writer);
                });
            }
        });
        Self {
            address,
            state,
            accepts,
        }
    }

    /// One that gives the same answer to everyone.
    pub fn fixed(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_, _, stream| put(stream, &answer))
    }

    /// One whose whole answer depends on the request and its number alone.
    pub fn answering(answer: impl Fn(&Asked, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::new(move |asked, number, stream| put(stream, answer(asked, number)))
    }

    /// A URL by name.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://origin.test:{}{path}", self.address.port())
    }

    /// Address and port, as in a URL.
    #[must_use]
    pub fn place(&self) -> String {
        self.address.to_string()
    }

    /// The number of requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state.lock().asked.len()
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().asked.clone()
    }

    /// Waits until there have been this many requests.
    pub fn wait_for_requests(&self, number: usize) {
        let fewer = |inner: &mut Inner| inner.asked.len() < number;
        let waited = self
            .state
            .changed
            .wait_timeout_while(self.state.lock(), DEADLINE, fewer);
        let (inner, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let asked = inner.asked.len();
        assert!(!timeout.timed_out(), "only {asked} requests of {number}");
    }

    /// Closes its port and all connections.
    pub fn stop(self) {
        self.state.lock().stopped = true;
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        self.accepts.join().unwrap();
        for connection in self.state.lock().connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection; false once there shall be none.
    fn connected(&self, stream: &TcpStream) -> bool {
        let mut inner = self.lock();
        let copy = stream.try_clone().unwrap();
        inner
            .connections
            .extend(copy.peer_addr().map(|peer| (peer, copy)));
        !inner.stopped
    }

    /// Forgets a connection, so that it is closed.
    fn ended(&self, stream: &TcpStream) {
        if let Ok(peer) = stream.peer_addr() {
            self.lock().connections.remove(&peer);
        }
    }

    /// Notes a request and returns its number.
    fn asked(&self, asked: &Asked) -> usize {
        let mut inner = self.lock();
        inner.asked.push(asked.clone());
        self.changed.notify_all();
        inner.asked.len() - 1
    }
}

/// Writes; a fetcher that has seen enough and closed is no fault.
pub fn put(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref());
}

/// Closes a connection so that its other side sees the end of what was written.
pub fn hang_up(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    // Waits for the other side, as closing with bytes unread would reset the connection.
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A whole answer with Content-Length; each of `headers` ends with CR LF.
#[must_use]
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Bytes that differ from place to place.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| {
            ((index ^ (index >> 8) ^ (index >> 16)) % 256)
                .try_into()
                .unwrap()
        })
        .collect()
}

/// Serves by hyper, HTTP/1 and 2, with TLS if a configuration is given.
pub fn served<F, A>(tls: Option<ServerConfig>, answer: F) -> SocketAddr
where
    F: Fn(hyper::Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = hyper::Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(async move {
                    let http = auto::Builder::new(TokioExecutor::new());
                    match acceptor {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => {
                                http.serve_connection(TokioIo::new(stream), service).await
                            }
                            Err(_) => Ok(()),
                        },
                    }
                });
            }
        });
    });
    address
}
