//! What does it cost that a model runs in a process of its own? The model of the bench `predict` in a worker, for 1 and
//! 100 rows: beside the same model in this process, and beside as many bytes there and back between two processes, over
//! the same kind of pipe, with nothing done to them.

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use quern_benches::{beside, online};
use quern_kit::Random;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What this program is called with to send back what comes over its standard input.
const ECHO: &str = "echo";
/// The bytes of a reply: a score, its schema and the end of its stream, as Arrow writes them.
const REPLY: usize = 512;

fn main() {
    if std::env::args().nth(1).is_some_and(|argument| argument == ECHO) {
        return echo();
    }
    let bench = online::bench();
    let [worker, thread] = ["worker", "scoring"].map(|model| bench.node.model(model));
    for rows in [1, 100] {
        let service = thread.service();
        let amounts: ArrayRef = Arc::new(Float64Array::from(vec![12.5; rows]));
        let hours: ArrayRef = Arc::new(Int64Array::from(vec![17; rows]));
        let ids = Arc::new(Int64Array::from(online::ids(&mut Random::seeded(7), rows)));
        let columns = service.inputs(vec![ids as ArrayRef, amounts, hours]);
        let vectors = bench.runtime.block_on(service.look_up(columns, vec![online::now_us(); rows]));
        let vectors = vectors.expect("vectors").vectors;
        let in_worker = || {
            black_box(bench.runtime.block_on(worker.run(&vectors)).expect("scores"));
        };
        let in_process = || {
            black_box(bench.runtime.block_on(thread.run(&vectors)).expect("scores"));
        };
        beside(&format!("{rows} row(s) in a worker, beside in process"), in_worker, in_process);
        let mut pipe = Pipe::open(rows * online::WIDTH * size_of::<f32>(), REPLY + rows * size_of::<f32>());
        beside(&format!("{rows} row(s) in a worker, beside bytes there and back"), in_worker, || pipe.ask());
    }
}

/// Another process at the end of a pipe.
struct Pipe {
    stream: UnixStream,
    child: Child,
    asked: Vec<u8>,
    reply: Vec<u8>,
}

impl Pipe {
    fn open(asked: usize, reply: usize) -> Pipe {
        let (mut stream, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let child = command.arg(ECHO).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn();
        for length in [asked, reply] {
            stream.write_all(&length.to_le_bytes()).expect("written");
        }
        Pipe { stream, child: child.expect("a process"), asked: vec![1; asked], reply: vec![0; reply] }
    }

    fn ask(&mut self) {
        self.stream.write_all(&self.asked).expect("written");
        self.stream.read_exact(&mut self.reply).expect("read");
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn echo() {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a socket"));
    let [mut asked, reply] = [(); 2].map(|()| {
        let mut length = [0; 8];
        stream.read_exact(&mut length).expect("a length");
        vec![0; usize::from_le_bytes(length)]
    });
    while stream.read_exact(&mut asked).is_ok() && stream.write_all(&reply).is_ok() {}
}
