//! A server made by hand, because what matters here is what a proper one would not do: hang, reset, lie about lengths.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Accepts connections and runs a script for each; stops when dropped.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start<Script, Running>(script: Script) -> Self
    where
        Script: Fn(Connection) -> Running + Send + 'static,
        Running: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                running.spawn(script(Connection { stream, unread: Vec::new() }));
            }
        });
        Self { address, connections, task }
    }

    /// Answers every request with the same bytes, on connections kept alive.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::start(move |mut connection| {
            let bytes = Arc::clone(&bytes);
            async move {
                while connection.request().await.is_some() {
                    connection.send(&bytes).await;
                }
            }
        })
        .await
    }

    /// Answers the first request with the bytes and ends the connection.
    pub async fn answering_once_then_closing(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::start(move |mut connection| {
            let bytes = Arc::clone(&bytes);
            async move {
                if connection.request().await.is_some() {
                    connection.send(&bytes).await;
                }
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// One request, head and body; None when the connection ended before a whole one.
    pub async fn request(&mut self) -> Option<String> {
        loop {
            if let Some(length) = whole(&self.unread) {
                let rest = self.unread.split_off(length);
                let request = std::mem::replace(&mut self.unread, rest);
                return Some(String::from_utf8(request).unwrap());
            }
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Sends bytes; false when the other side is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Keeps the connection open until the other side ends it.
    pub async fn hang(&mut self) {
        while self.stream.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0) {}
    }

    /// Ends the connection with RST instead of FIN.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// The length of the request at the front, if it is here as a whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap().to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}

/// An answer with a JSON body.
pub fn json(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Word\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}
