//! A proxy before an S3 server, a request at a time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::{Fault, Ring};

/// Listens on a port of its own and passes requests on to `upstream`, a `host:port`, as `ring` lets them. Returns its address.
pub fn before(upstream: &str, ring: &Arc<Ring>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("opening a port for a proxy")?;
    let address = listener.local_addr().context("asking for the port of a proxy")?;
    let (upstream, ring) = (upstream.to_owned(), ring.clone());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            if ring.is_gone() {
                break;
            }
            // A client that left before it was let in is none.
            let Ok(client) = client else { continue };
            let (upstream, ring) = (upstream.clone(), ring.clone());
            std::thread::spawn(move || {
                // Whoever is cut off hears it from the closed connection.
                let _ = serve(&client, &upstream, &ring);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    Ok(address)
}

/// A request or an answer, as it came.
struct Message {
    head: String,
    bytes: Vec<u8>,
}

impl Message {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn starts_with(&self, text: &str) -> bool {
        self.head.starts_with(text)
    }

    /// Reads up to the empty line. `None` where the other side has closed.
    fn head_of(from: &mut BufReader<TcpStream>) -> Result<Option<Message>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(Message { head: String::from_utf8_lossy(&bytes).into_owned(), bytes }))
    }

    /// Reads the body that belongs to the head.
    fn body_of(&mut self, from: &mut BufReader<TcpStream>) -> Result<()> {
        if self.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let before = self.bytes.len();
                from.read_until(b'\n', &mut self.bytes)?;
                let line = String::from_utf8_lossy(&self.bytes[before..]).trim().to_owned();
                let size = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16)?;
                from.by_ref().take(size + 2).read_to_end(&mut self.bytes)?;
                if size == 0 {
                    return Ok(());
                }
            }
        }
        let length: u64 = self.field("content-length").unwrap_or("0").parse()?;
        if from.by_ref().take(length).read_to_end(&mut self.bytes)? as u64 != length {
            bail!("a body ended early");
        }
        Ok(())
    }
}

fn serve(client: &TcpStream, upstream: &str, ring: &Ring) -> Result<()> {
    let server = TcpStream::connect(upstream)?;
    for side in [client, &server] {
        side.set_nodelay(true)?;
    }
    let (mut asked, mut answers) = (BufReader::new(client.try_clone()?), BufReader::new(server.try_clone()?));
    let (mut to_client, mut to_server) = (client, &server);
    while let Some(mut request) = Message::head_of(&mut asked)? {
        if request.field("expect").is_some() {
            to_client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.body_of(&mut asked)?;
        let fault = ring.next(true);
        match fault {
            Some(Fault::KillBefore) => return ring.kill(),
            Some(Fault::Reset | Fault::Away(_)) => return Ok(()),
            Some(Fault::TruncateRequest) => {
                to_server.write_all(&request.bytes[..request.bytes.len() / 2])?;
                let _ = server.shutdown(Shutdown::Both);
                return Ok(());
            }
            Some(Fault::Refuse(status)) => {
                let code = if status == 500 { "InternalError" } else { "SlowDown" };
                let body = format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>");
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} Planned\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n"
                );
                to_client.write_all(format!("{head}{body}").as_bytes())?;
                continue;
            }
            Some(Fault::Lie) => {
                to_client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            // The line's own latency.
            Some(Fault::Stall(time)) => std::thread::sleep(time),
            Some(Fault::KillAfter | Fault::LoseAnswer | Fault::TruncateAnswer) | None => {}
        }
        to_server.write_all(&request.bytes)?;
        let answer = answer_to(&request, &mut answers)?;
        match fault {
            Some(Fault::KillAfter) => return ring.kill(),
            Some(Fault::LoseAnswer) => return Ok(()),
            Some(Fault::TruncateAnswer) => {
                to_client.write_all(&answer.bytes[..answer.bytes.len() / 2])?;
                return Ok(());
            }
            _ => to_client.write_all(&answer.bytes)?,
        }
    }
    Ok(())
}

fn answer_to(request: &Message, answers: &mut BufReader<TcpStream>) -> Result<Message> {
    loop {
        let mut answer = Message::head_of(answers)?.context("the server closed the connection")?;
        if answer.starts_with("HTTP/1.1 1") {
            continue;
        }
        let bodiless = request.starts_with("HEAD ")
            || ["204", "304"].iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status}")));
        if !bodiless {
            answer.body_of(answers)?;
        }
        return Ok(answer);
    }
}
