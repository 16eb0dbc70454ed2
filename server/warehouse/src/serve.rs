//! What does the process do that asks a database? It loads a driver, asks it, hands on what comes, and ends.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use adbc_core::error::{Error as DriverError, Status};
use adbc_core::options::{AdbcVersion, OptionConnection, OptionDatabase, OptionStatement, OptionValue};
use adbc_core::{Connection, Database, Driver, Optionable, Statement};
use adbc_driver_manager::{ManagedConnection, ManagedDriver};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use quern_base::secret::struck_out;

use crate::error::Error;
use crate::message::{Failed, Reply, answer, asked};
use crate::question::Question;

/// Set where this program is started to ask a database.
pub(crate) const VARIABLE: &str = "QUERN_ASKS";
/// The most rows that are handed on together.
const ROWS_MAX: usize = 65_536;
/// The driver of SQLite takes the types of so many first rows for those of all.
const SQLITE_ROWS: (&str, &str) = ("adbc.sqlite.query.batch_rows", "65536");

/// Whether this process was started to ask a database.
pub fn is_wanted() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Answers whoever started this process, over the sockets that are its standard input and output, and ends.
///
/// # Errors
/// Where they are no sockets: nobody but a server starts it.
pub fn serve() -> io::Result<()> {
    quern_base::tasks::step_back();
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut control = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    // Fails on anything that is no socket.
    socket.peer_addr()?;
    control.peer_addr()?;
    // It ends with the process that started it, whatever the driver is at.
    let listening = move || {
        let _ = control.read(&mut [0]);
        std::process::abort();
    };
    std::thread::Builder::new().name("control".to_owned()).spawn(listening)?;
    let question = asked(&mut socket)?;
    // Whoever asked is gone where that cannot be told.
    if let Err(Stopped::Failed(doing, error)) = run(&question, &mut socket) {
        let _ = answer(&mut socket, &Reply::Failed(failed(&question, doing, &error)));
    }
    Ok(())
}

/// Why nothing more comes.
enum Stopped {
    Failed(&'static str, DriverError),
    Gone,
}

impl From<Error> for Stopped {
    fn from(_: Error) -> Stopped {
        Stopped::Gone
    }
}

fn run(question: &Question, socket: &mut UnixStream) -> std::result::Result<(), Stopped> {
    let at = |doing| move |error| Stopped::Failed(doing, error);
    let mut driver = ManagedDriver::load_dynamic_from_filename(&question.library, None, AdbcVersion::V110)
        .map_err(at("loading the driver"))?;
    let option = |(key, value): &(String, String)| {
        (OptionDatabase::from(key.as_str()), OptionValue::String(value.clone()))
    };
    let database =
        driver.new_database_with_opts(question.options.iter().map(option)).map_err(at("opening it"))?;
    let mut connection = database.new_connection().map_err(at("connecting"))?;
    read_only(question, &mut connection).map_err(at("having it read only"))?;
    for statement in &question.statements {
        rows(question, &mut connection, statement, socket)?;
    }
    Ok(())
}

/// Has the database read only, by words or by an option that not all drivers have.
fn read_only(question: &Question, connection: &mut ManagedConnection) -> adbc_core::error::Result<()> {
    let Some(first) = &question.first else {
        let _ = connection.set_option(OptionConnection::ReadOnly, OptionValue::String("true".to_owned()));
        return Ok(());
    };
    let mut statement = connection.new_statement()?;
    statement.set_sql_query(first)?;
    statement.execute_update().map(drop)
}

fn rows(
    question: &Question,
    connection: &mut ManagedConnection,
    sql: &str,
    socket: &mut UnixStream,
) -> std::result::Result<(), Stopped> {
    let at = |doing| move |error| Stopped::Failed(doing, error);
    let mut statement = connection.new_statement().map_err(at("asking it"))?;
    if question.driver == "sqlite" {
        let option = OptionStatement::from(SQLITE_ROWS.0);
        statement
            .set_option(option, OptionValue::String(SQLITE_ROWS.1.to_owned()))
            .map_err(at("asking it"))?;
    }
    statement.set_sql_query(sql).map_err(at("asking it"))?;
    let reader = statement.execute().map_err(at("asking it"))?;
    let schema = reader.schema();
    answer(socket, &Reply::Rows(RecordBatch::new_empty(schema)))?;
    for batch in reader {
        let batch = batch.map_err(|error| Stopped::Failed("reading its rows", of_stream(error)))?;
        for start in (0..batch.num_rows()).step_by(ROWS_MAX) {
            let part = batch.slice(start, ROWS_MAX.min(batch.num_rows() - start));
            answer(socket, &Reply::Rows(part))?;
        }
    }
    answer(socket, &Reply::End)?;
    Ok(())
}

fn of_stream(error: ArrowError) -> DriverError {
    let message = match error {
        ArrowError::CDataInterface(message) => message,
        error => error.to_string(),
    };
    DriverError::with_message_and_status(message, Status::Unknown)
}

fn failed(question: &Question, doing: &str, error: &DriverError) -> Failed {
    let letters = error.sqlstate.iter().map(|letter| u8::try_from(*letter).unwrap_or_default());
    let sqlstate: String = letters.filter(u8::is_ascii_alphanumeric).map(char::from).collect();
    Failed {
        doing: doing.to_owned(),
        status: format!("{:?}", error.status),
        sqlstate: if sqlstate == "00000" { String::new() } else { sqlstate },
        message: struck_out(error.message.trim(), &question.secrets),
    }
}
