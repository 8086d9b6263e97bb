//! A mail server that takes whatever it is given, unless it is told otherwise.

#![allow(dead_code, reason = "two test crates share this, and each uses a part of it")]
#![expect(clippy::unwrap_used, reason = "test support fails by panicking")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

#[derive(Debug, Default)]
pub struct SmtpServer {
    mails: Mutex<Vec<String>>,
    /// So many of the next recipients are put off.
    pub put_off: AtomicU32,
    /// So many of the next mails are taken, and their senders never hear of it.
    pub unanswered: AtomicU32,
}

impl SmtpServer {
    /// The server and its URL.
    pub async fn start() -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let server = Arc::new(Self::default());
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().talk(stream));
            }
        });
        (server, url)
    }

    /// Header and text of what came, one text per mail.
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    async fn talk(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut say = "220 test";
        loop {
            stream.get_mut().write_all(format!("{say}\r\n").as_bytes()).await.unwrap();
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let word = line.split_whitespace().next().unwrap_or_default().to_uppercase();
            let one_left = |left: u32| left.checked_sub(1);
            say = match word.as_str() {
                "EHLO" | "HELO" => "250 test",
                "RCPT" if line.contains("nobody@") => "550 no such person <nobody@example.org>",
                "RCPT" if self.put_off.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_left).is_ok() => {
                    "451 later"
                }
                "DATA" => {
                    stream.get_mut().write_all(b"354 go on\r\n").await.unwrap();
                    let mut mail = String::new();
                    while !mail.ends_with("\r\n.\r\n") {
                        stream.read_line(&mut mail).await.unwrap();
                    }
                    self.mails.lock().unwrap().push(mail);
                    if self.unanswered.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_left).is_ok() {
                        std::future::pending::<()>().await;
                    }
                    "250 taken"
                }
                _ => "250 ok",
            };
        }
    }
}
