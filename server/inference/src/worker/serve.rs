//! What does a worker do? It loads a file, runs it, and ends with the process that started it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use ort::session::Session;
use parking_lot::Mutex;
use quern_base::tasks::step_back;
use quern_engine::caught::caught;

use super::message::{Answer, Asked, Failed, Load, Loaded, Reply, Request, Run, receive, send, to_bytes};
use crate::error::{Error, Result};
use crate::outputs::{self, signature};
use crate::run::run;
use crate::runtime::{Runtime, unreadable};
use crate::stop::Stop;

/// The run that is under way, by its number.
type UnderWay = Arc<Mutex<Option<(u64, Stop)>>>;

/// Answers whoever started this process, over the sockets that are its standard input and output, until they are
/// closed.
///
/// # Errors
/// Where they are no sockets: nobody but a server starts it.
pub fn serve() -> io::Result<()> {
    step_back();
    let mut requests = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let control = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    // Fails on anything that is no socket.
    requests.peer_addr()?;
    control.peer_addr()?;
    let under_way = UnderWay::default();
    let listening = Arc::clone(&under_way);
    std::thread::Builder::new().name("control".to_owned()).spawn(move || listen(control, &listening))?;
    let mut worker = Loader { session: None, under_way };
    for number in 1.. {
        let request: Request = match receive(&mut requests) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            request => request?,
        };
        let answer =
            worker.answer(request, number).unwrap_or_else(|error| Answer::Failed(Failed::from(error)));
        send(&mut requests, &Reply { answer: Some(answer) })?;
    }
    Ok(())
}

/// Ends runs that are to end; and this process with the one that started it, whatever runs here.
fn listen(mut control: UnixStream, under_way: &UnderWay) {
    let mut number = [0; 8];
    while control.read_exact(&mut number).is_ok() {
        if let Some((running, stop)) = &*under_way.lock()
            && *running == u64::from_le_bytes(number)
        {
            stop.end();
        }
    }
    std::process::abort();
}

struct Loader {
    session: Option<Session>,
    under_way: UnderWay,
}

impl Loader {
    fn answer(&mut self, request: Request, number: u64) -> Result<Answer> {
        match request.asked {
            Some(Asked::Load(load)) => {
                // Types that the binding does not know end in a panic there.
                let loaded = caught(|| self.load(&load));
                let gave_up = "ONNX Runtime's binding gave up on the file: it holds types unknown to it";
                loaded.unwrap_or_else(|_| Err(Error::broken(gave_up))).map(Answer::Loaded)
            }
            Some(Asked::Run(run)) => {
                *self.under_way.lock() = Some((number, Stop::new()?));
                let outputs = self.run(run);
                *self.under_way.lock() = None;
                outputs.map(Answer::Outputs)
            }
            None => Err(Error::broken("a request without a question")),
        }
    }

    fn load(&mut self, load: &Load) -> Result<Loaded> {
        let Load { library, providers, onnx } = load;
        let providers = providers.iter().filter_map(|name| name.parse().ok()).collect();
        let runtime = Runtime::load(Some(Path::new(library)))?.on(providers);
        let (session, provider) =
            runtime.session(onnx).map_err(|error| Error::broken(unreadable(onnx, &error)))?;
        let signature = signature(&session);
        let columns = match outputs::declared(&session) {
            Some(columns) => to_bytes(&RecordBatch::new_empty(columns))?,
            None => Vec::new(),
        };
        self.session = Some(session);
        Ok(Loaded::new(signature, columns, provider.name().to_owned()))
    }

    fn run(&mut self, request: Run) -> Result<Vec<u8>> {
        let stop = self.under_way.lock().as_ref().map(|(_, stop)| stop.clone());
        let session = self.session.as_mut().ok_or_else(|| Error::broken("nothing is loaded"))?;
        let (inputs, rows) = request.tensors();
        to_bytes(&run(session, inputs, rows, stop.as_ref().map(Stop::options))?)
    }
}
