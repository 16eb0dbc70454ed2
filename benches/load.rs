//! What does a client see over sockets that sends the next request when it has the last reply, and what does the server
//! use for it?

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::median;

/// What one turn of the load saw.
pub struct Turn {
    /// Requests in a second.
    pub per_second: f64,
    /// Of the latencies, µs.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// CPU that the server used for one request, µs.
    pub cpu_us: f64,
}

/// Sends `requests` over so many connections, each a stream that `connect` makes, for the time of a `turn`, to a server
/// whose threads in this process are called `name`.
///
/// # Panics
/// Where an answer is none.
pub fn load<S, F>(
    name: &str,
    connect: impl Fn() -> F,
    (requests, connections): (&Arc<Vec<Vec<u8>>>, usize),
    turn: Duration,
) -> Turn
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let one_thread = one_thread.expect("a tokio runtime");
    let streams: Vec<S> = one_thread.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            streams.push(connect().await.expect("a connection"));
        }
        streams
    });
    let cpu_before = cpu_us_of(name);
    let start = Instant::now();
    let mut latencies_us: Vec<f64> = one_thread.block_on(async {
        let clients = streams.into_iter().enumerate();
        let loads: Vec<_> = clients
            .map(|(place, stream)| {
                tokio::spawn(client(stream, Arc::clone(requests), place * 17, start + turn))
            })
            .collect();
        let mut all = Vec::new();
        for load in loads {
            all.extend(load.await.expect("no panic").expect("an answer"));
        }
        all
    });
    let seconds = start.elapsed().as_secs_f64();
    let count = latencies_us.len();
    let cpu_us = (cpu_us_of(name) - cpu_before) / count as f64;
    let p50_us = median(&mut latencies_us);
    Turn { per_second: count as f64 / seconds, p50_us, p99_us: latencies_us[count * 99 / 100], cpu_us }
}

/// One connection: a request, its reply, the next request. Returns the latencies, µs.
async fn client<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    requests: Arc<Vec<Vec<u8>>>,
    first: usize,
    end: Instant,
) -> io::Result<Vec<f64>> {
    let mut latencies_us = Vec::new();
    let mut reply = vec![0; 1 << 20];
    for request in requests.iter().cycle().skip(first) {
        let start = Instant::now();
        if start >= end {
            break;
        }
        stream.write_all(request).await?;
        stream.flush().await?;
        let (mut filled, mut wanted) = (0, usize::MAX);
        while filled < wanted {
            let read = stream.read(&mut reply[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if wanted == usize::MAX {
                wanted = length(&reply[..filled]).unwrap_or(usize::MAX);
            }
            // Room for what is still to come.
            if wanted != usize::MAX && reply.len() < wanted {
                reply.resize(wanted, 0);
            }
        }
        latencies_us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies_us)
}

/// How long a reply is, once its head is there.
fn length(reply: &[u8]) -> Option<usize> {
    let head = reply.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&reply[..head]).expect("a head is text");
    assert!(text.starts_with("HTTP/1.1 200 "), "{}", String::from_utf8_lossy(reply));
    let (_, after) = text.split_once("content-length: ").expect("a reply has a length");
    let (body, _) = after.split_once("\r\n").expect("a header ends");
    Some(head + body.parse::<usize>().expect("a number"))
}

/// CPU time of this process's threads called `name`, µs; 0 where the kernel does not tell.
fn cpu_us_of(name: &str) -> f64 {
    let of_thread = |task: std::fs::DirEntry| {
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        if comm.trim() != name {
            return None;
        }
        let nanos = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        nanos.split_whitespace().next()?.parse::<f64>().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(of_thread).sum::<f64>() / 1e3
}
