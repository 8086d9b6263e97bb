//! The cheapest way to ask a server over HTTP: one connection, kept open, a request that is written beforehand. The
//! generator shares the machine with what it measures, so what it takes itself must be little.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const HEADERS_MAX: usize = 32;
const READ_AT_ONCE: usize = 16 * 1024;

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// Where head and body of an answer lie.
struct Framed {
    status: u16,
    head: usize,
    body: usize,
}

/// A whole request with a JSON body, and how the client prefers it to be answered.
pub fn post(address: SocketAddr, path: &str, prefer: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nPrefer: {prefer}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A whole request without a body.
pub fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(READ_AT_ONCE) })
    }

    /// Sends the request and reads the answer, which must say how long it is.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.received.clear();
        self.stream.write_all(request).await?;
        loop {
            if let Some(Framed { status, head, body }) = framed(&self.received)? {
                let whole = head + body;
                if self.received.len() >= whole {
                    ensure!(self.received.len() == whole, "the server sent more than its answer");
                    return Ok(Answer { status, body: &self.received[head..] });
                }
                self.received.reserve(whole - self.received.len());
            }
            self.received.reserve(READ_AT_ONCE);
            ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the server closed the connection");
        }
    }
}

/// None: the head is not all there yet.
fn framed(received: &[u8]) -> Result<Option<Framed>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(received)? else { return Ok(None) };
    let Some(length) = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case("content-length")) else {
        bail!("an answer without Content-Length");
    };
    let body = std::str::from_utf8(length.value)?.trim().parse()?;
    Ok(Some(Framed { status: response.code.context("an answer without a status")?, head, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_whole_however_they_arrive() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            for pieces in
                [&["HTTP/1.1 201 Created\r\ncontent-le", "ngth: 5\r\n\r\nab", "cde"][..], &["HTTP/1.1 200 OK\r\n\r\n"]]
            {
                assert!(stream.read(&mut request).await.unwrap() > 0);
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut connection = Connection::open(address).await.unwrap();
        let request = post(address, "/x", "wait=1", b"{}");
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!((answer.status, answer.body), (201, &b"abcde"[..]));
        let error = connection.exchange(&request).await.unwrap_err();
        assert!(error.to_string().contains("Content-Length"), "{error}");
    }
}
