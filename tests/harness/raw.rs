//! A participant that speaks bytes instead of HTTP: whatever a test wants it to answer to an action. Compensations are
//! answered properly, and remembered.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

const UNDONE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Stops when dropped.
#[derive(Debug)]
pub struct Raw {
    address: SocketAddr,
    undos: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Raw {
    /// Has `script` answer each request that is no compensation; the connection ends with it.
    pub async fn start<Script, Running>(script: Script) -> Self
    where
        Script: Fn(TcpStream) -> Running + Send + Sync + 'static,
        Running: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
        let address = listener.local_addr().expect("it is bound");
        let undos = Arc::new(Mutex::new(Vec::new()));
        let (script, kept) = (Arc::new(script), Arc::clone(&undos));
        let task = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                running.spawn(serve(stream, Arc::clone(&script), Arc::clone(&kept)));
            }
        });
        Self { address, undos, task }
    }

    /// Answers with these bytes and ends the connection.
    pub async fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::start(move |mut stream| {
            let bytes = Arc::clone(&bytes);
            async move {
                // Skald need not read all of it.
                let _ = stream.write_all(&bytes).await;
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of the compensations so far, in lower case.
    pub fn undos(&self) -> Vec<String> {
        self.undos.lock().expect("nothing panics while it holds this lock").clone()
    }
}

/// A script that never answers: it keeps the connection until the other side ends it.
pub async fn hang(mut stream: TcpStream) {
    let mut ignored = [0; 64];
    while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<Script, Running>(mut stream: TcpStream, script: Arc<Script>, undos: Arc<Mutex<Vec<String>>>)
where
    Script: Fn(TcpStream) -> Running,
    Running: Future<Output = ()>,
{
    while let Some(head) = request(&mut stream).await {
        if !head.contains("saga-operation: compensation") {
            return script(stream).await;
        }
        undos.lock().expect("nothing panics while it holds this lock").push(head);
        if stream.write_all(UNDONE).await.is_err() {
            return;
        }
    }
}

/// The head of the next request, in lower case, once its body has come too.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("Skald sends lengths"));
            if bytes.len() >= end + 4 + length {
                return Some(head);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
