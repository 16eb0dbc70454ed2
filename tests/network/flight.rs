//! How does a training set come down over Arrow Flight, and what does the server say of a spine that is none?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampSecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use expect_test::{Expect, expect};
use futures::{StreamExt, TryStreamExt, stream};
use quern_kit::{Repository, Server};
use tonic::transport::{Channel, Endpoint};

use crate::planes::{self, DEFINITIONS, instance};

/// Microseconds of a day of January 2013, at noon.
fn january(day: i64) -> i64 {
    (1_356_998_400 + (day - 1) * 86_400 + 43_200) * 1_000_000
}

fn times(days: &[i64]) -> ArrayRef {
    let times = days.iter().map(|day| january(*day));
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn spine(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let columns = columns.iter().map(|(name, column)| (*name, Arc::clone(column), true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Four rows out of any order, one without a key, with a label and a note beside what is asked.
fn four() -> RecordBatch {
    spine(&[
        ("late", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]))),
        ("distance", floats(&[Some(2000.0), Some(1.0), None, Some(1000.5)])),
        ("event_timestamp", times(&[9, 1, 9, 3])),
        ("tailnum", texts(&[Some("N1"), Some("N1"), None, Some("N1")])),
        ("note", texts(&[Some("a"), Some("b"), Some("c"), None])),
    ])
}

async fn pull(
    server: &Server,
    service: &str,
    schema: SchemaRef,
    spine: Vec<RecordBatch>,
    as_known: bool,
) -> quern::Result<(SchemaRef, Vec<RecordBatch>)> {
    let set = server.client.training_set(service, schema, stream::iter(spine), as_known).await?;
    Ok((Arc::clone(set.schema()), set.try_collect().await?))
}

async fn check(server: &Server, spine: &[RecordBatch], as_known: bool, expected: Expect) {
    let pulled = pull(server, "delay_v1", spine[0].schema(), spine.to_vec(), as_known).await;
    let (schema, batches) = pulled.unwrap();
    assert!(batches.iter().all(|batch| batch.schema() == schema));
    expected.assert_eq(&format!("{}\n", pretty_format_batches(&batches).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_set_keeps_the_spine_row_for_row() {
    let server = planes::serve().await;
    check(
        &server,
        &[four()],
        false,
        expect![[r#"
            +------+----------------------+---------+------+----------+------------+-------+
            | late | event_timestamp      | tailnum | note | distance | last_delay | far   |
            +------+----------------------+---------+------+----------+------------+-------+
            | 1    | 2013-01-09T12:00:00Z | N1      | a    | 2000.0   | 7.5        | true  |
            |      | 2013-01-01T12:00:00Z | N1      | b    | 1.0      | 5.0        | false |
            | 3    | 2013-01-09T12:00:00Z |         | c    |          |            |       |
            | 4    | 2013-01-03T12:00:00Z | N1      |      | 1000.5   | 7.5        | true  |
            +------+----------------------+---------+------+----------+------------+-------+
        "#]],
    )
    .await;
    // What was noted later than the query time was not known then.
    check(
        &server,
        &[four()],
        true,
        expect![[r#"
            +------+----------------------+---------+------+----------+------------+-------+
            | late | event_timestamp      | tailnum | note | distance | last_delay | far   |
            +------+----------------------+---------+------+----------+------------+-------+
            | 1    | 2013-01-09T12:00:00Z | N1      | a    | 2000.0   | 7.5        | true  |
            |      | 2013-01-01T12:00:00Z | N1      | b    | 1.0      | 5.0        | false |
            | 3    | 2013-01-09T12:00:00Z |         | c    |          |            |       |
            | 4    | 2013-01-03T12:00:00Z | N1      |      | 1000.5   | 5.0        | true  |
            +------+----------------------+---------+------+----------+------------+-------+
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spine_may_come_in_any_number_of_batches() {
    let server = planes::serve().await;
    let whole = pull(&server, "delay_v1", four().schema(), vec![four()], false).await.unwrap();
    let parts = vec![four().slice(0, 1), four().slice(1, 0), four().slice(1, 3)];
    let parts = pull(&server, "delay_v1", four().schema(), parts, false).await.unwrap();
    assert_eq!(parts, whole);

    // More than fits one message, and more than the server makes at a time.
    let many: Vec<_> = std::iter::repeat_n(four(), 30_000).collect();
    let many = arrow::compute::concat_batches(&four().schema(), &many).unwrap();
    let parts = (0..4).map(|part| many.slice(part * 30_000, 30_000)).collect();
    let (_, set) = pull(&server, "delay_v1", many.schema(), parts, false).await.unwrap();
    assert!(set.len() > 1);
    let set = arrow::compute::concat_batches(&whole.0, &set).unwrap();
    assert_eq!(set.num_rows(), 120_000);
    for start in [0, 4 * 8_191, 119_996] {
        assert_eq!(set.slice(start, 4), whole.1[0]);
    }
}

/// N1 and N3 asked about when they landed; N1 a moment later, and when it landed without being known yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_see_a_row_of_their_own_time_are_counted() {
    let server = planes::serve().await;
    let landed: [i64; 4] =
        [1_357_034_400_000_000, 1_357_207_200_000_000, 1_357_034_400_000_001, 1_357_120_800_000_000];
    let times = TimestampMicrosecondArray::from(landed.to_vec()).with_timezone("UTC");
    let spine = spine(&[
        ("event_timestamp", Arc::new(times)),
        ("tailnum", texts(&[Some("N1"), Some("N3"), Some("N1"), Some("N1")])),
        ("distance", floats(&[Some(1.0); 4])),
    ]);
    let count = async |as_known| {
        let rows = stream::iter([spine.clone()]);
        let mut set = server.client.training_set("delay_v1", spine.schema(), rows, as_known).await.unwrap();
        while let Some(batch) = set.next().await {
            batch.unwrap();
        }
        let notes = set.notes();
        assert_eq!(notes.rows, 4);
        notes.coinciding.get("plane_history").copied()
    };
    assert_eq!((count(false).await, count(true).await), (Some(3), Some(2)));
    let before = planes::DEFINITIONS.replace("ttl: 30d\n", "ttl: 30d\nat: before\n");
    server.repository.write("definitions.yaml", before);
    server.apply().await.unwrap();
    assert_eq!((count(false).await, count(true).await), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_spine_has_a_schema() {
    let server = planes::serve().await;
    let (schema, batches) = pull(&server, "delay_v1", four().schema(), vec![], false).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    expect![[r#"
        late Int64
        event_timestamp Timestamp(µs, "UTC")
        tailnum Utf8
        note Utf8
        distance Float64
        last_delay Float64
        far Boolean"#]]
    .assert_eq(&columns.join("\n"));
}

/// What a schema says besides columns, then its columns.
fn described(schema: &Schema) -> String {
    let said: BTreeMap<_, _> = schema.metadata().iter().collect();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    format!("{said:?}\n{}\n", columns.join(" "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_says_in_which_order_its_outputs_stand() {
    // A join key and a request column among the outputs, and not first.
    let repository = planes::repository();
    let service = "kind: FeatureService\nname: mixed\nrequest: [{name: distance, type: float64}]\n\
         features: [{view: plane_history, features: [last_delay]}]\nderived: [{name: far, expr: \"distance > 1000\"}]\n\
         outputs: [last_delay, tailnum, distance, far]\n";
    repository.write("definitions.yaml", format!("{DEFINITIONS}---\n{service}"));
    let node = planes::open(&repository).await;
    let server = Server::of(repository, node).await;
    let (schema, rows) = pull(&server, "mixed", four().schema(), vec![four()], false).await.unwrap();
    expect![[r#"
        {"quern.feature_service": "mixed", "quern.functions": "46de9ec99dec5ff9", "quern.outputs": "[\"last_delay\",\"tailnum\",\"distance\",\"far\"]"}
        late event_timestamp note last_delay tailnum distance far
    "#]].assert_eq(&described(&schema));
    expect![[r#"
        +------+----------------------+------+------------+---------+----------+-------+
        | late | event_timestamp      | note | last_delay | tailnum | distance | far   |
        +------+----------------------+------+------------+---------+----------+-------+
        | 1    | 2013-01-09T12:00:00Z | a    | 7.5        | N1      | 2000.0   | true  |
        |      | 2013-01-01T12:00:00Z | b    | 5.0        | N1      | 1.0      | false |
        | 3    | 2013-01-09T12:00:00Z | c    |            |         |          |       |
        | 4    | 2013-01-03T12:00:00Z |      | 7.5        | N1      | 1000.5   | true  |
        +------+----------------------+------+------------+---------+----------+-------+
    "#]]
    .assert_eq(&format!("{}\n", pretty_format_batches(&rows).unwrap()));

    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    let mut flight = FlightServiceClient::new(channel);
    let command = FlightDescriptor::new_cmd("{\"feature_service\": \"mixed\"}");
    let info = flight.get_flight_info(command.clone()).await.unwrap().into_inner();
    let shown = described(&info.try_decode_schema().unwrap());
    expect![[r#"
        {"quern.feature_service": "mixed", "quern.functions": "46de9ec99dec5ff9", "quern.outputs": "[\"last_delay\",\"tailnum\",\"distance\",\"far\"]"}
        event_timestamp last_delay tailnum distance far
    "#]].assert_eq(&shown);
    let found = flight.get_schema(command).await.unwrap().into_inner();
    assert_eq!(described(&Schema::try_from(&found).unwrap()), shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_are_read_by_rule_not_by_guess() {
    let server = planes::serve().await;
    // Seconds without a zone, text with and without one, whole numbers for a float: read as UTC microseconds and as
    // float64.
    let seconds: ArrayRef = Arc::new(TimestampSecondArray::from_iter_values([january(9) / 1_000_000]));
    for times in [seconds, texts(&[Some("2013-01-09T13:00:00+01:00")]), texts(&[Some("2013-01-09 12:00:00")])]
    {
        let loose = spine(&[
            ("event_timestamp", times),
            ("tailnum", Arc::new(arrow::array::LargeStringArray::from(vec!["N1"]))),
            ("distance", Arc::new(arrow::array::Int32Array::from(vec![2000]))),
        ]);
        check(
            &server,
            &[loose],
            false,
            expect![[r#"
            +----------------------+---------+----------+------------+------+
            | event_timestamp      | tailnum | distance | last_delay | far  |
            +----------------------+---------+----------+------------+------+
            | 2013-01-09T12:00:00Z | N1      | 2000.0   | 7.5        | true |
            +----------------------+---------+----------+------------+------+
        "#]],
        )
        .await;
    }
}

async fn check_refusal(server: &Server, service: &str, columns: &[(&str, ArrayRef)], expected: Expect) {
    let spine = spine(columns);
    let error = pull(server, service, spine.schema(), vec![spine], false).await.unwrap_err();
    expected.assert_eq(&format!("{:?}: {error}", error.code().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spine_that_does_not_fit_is_told_why() {
    let server = planes::serve().await;
    let (time, tail, distance) = (times(&[9]), texts(&[Some("N1")]), floats(&[Some(1.0)]));
    let fits = [("event_timestamp", time.clone()), ("tailnum", tail.clone()), ("distance", distance.clone())];
    let but = |place: usize, name: &'static str, column: &ArrayRef| {
        let mut columns = fits.clone();
        columns[place] = (name, Arc::clone(column));
        columns
    };
    check_refusal(
        &server,
        "delay",
        &fits,
        expect![
            "NotFound: unknown feature service `delay`; did you mean `delay_v1`? known: carrier_v1, delay_v1"
        ],
    )
    .await;
    check_refusal(&server, "delay_v1", &fits[1..], expect!["InvalidArgument: the spine has no column `event_timestamp` (known: distance, tailnum); feature service `delay_v1` needs: event_timestamp timestamp, tailnum string, distance float64"]).await;
    check_refusal(&server, "delay_v1", &but(1, "tailnumber", &tail), expect!["InvalidArgument: the spine has no column `tailnum` (did you mean `tailnumber`? known: distance, event_timestamp, tailnumber); feature service `delay_v1` needs: event_timestamp timestamp, tailnum string, distance float64"]).await;
    check_refusal(
        &server,
        "delay_v1",
        &but(2, "distance", &tail),
        expect!["InvalidArgument: the spine's column `distance` must be float64, but it is string"],
    )
    .await;
    check_refusal(
        &server,
        "delay_v1",
        &but(1, "tailnum", &distance),
        expect!["InvalidArgument: the spine's column `tailnum` must be string, but it is float64"],
    )
    .await;
    check_refusal(
        &server,
        "delay_v1",
        &but(0, "event_timestamp", &tail),
        expect![[r#"InvalidArgument: row 0 of the spine, column `event_timestamp`: expected timestamp (RFC 3339), found string "N1""#]],
    )
    .await;
    let no_time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![None]).with_timezone("UTC"));
    check_refusal(
        &server,
        "delay_v1",
        &but(0, "event_timestamp", &no_time),
        expect!["InvalidArgument: row 0 of the spine has no `event_timestamp`; every row needs a query time"],
    )
    .await;
    let collides = [&fits[..], &[("far", distance.clone())]].concat();
    check_refusal(&server, "delay_v1", &collides, expect!["InvalidArgument: the spine's column `far` and an output of feature service `delay_v1` share a name; rename or drop the spine's column"]).await;
    let twice = [&fits[..], &[("note", distance.clone()), ("note", distance)]].concat();
    check_refusal(&server, "delay_v1", &twice, expect!["InvalidArgument: the spine has two columns `note`"])
        .await;
}

/// Asks with messages as they are; the rows that came back, or the status.
async fn exchange(channel: &Channel, messages: Vec<FlightData>) -> Result<usize, tonic::Status> {
    let mut flight = FlightServiceClient::new(channel.clone());
    let mut reply = flight.do_exchange(stream::iter(messages)).await?.into_inner();
    let mut count = 0;
    while reply.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// The messages of a good request: the schema with the command, then the rows.
async fn messages(spine: RecordBatch, command: &str) -> Vec<FlightData> {
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(spine.schema())
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_owned())));
    encoder.build(stream::iter([Ok(spine)])).map(Result::unwrap).collect().await
}

const COMMAND: &str = "{\"feature_service\": \"delay_v1\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_19_hostile_bytes_are_an_error_and_the_server_lives_on() {
    let server = planes::serve().await;
    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    let good = messages(four(), COMMAND).await;
    assert_eq!(exchange(&channel, good.clone()).await.unwrap(), 2);

    let refused = async |messages: Vec<FlightData>| exchange(&channel, messages).await.unwrap_err();
    let mut said = String::new();
    for messages in [
        vec![],
        vec![good[1].clone()],
        messages(four(), "").await,
        messages(four(), "{\"feature_service\": 1}").await,
        messages(four(), "{\"service\": \"delay_v1\"}").await,
        vec![FlightData { data_header: "not a flatbuffer".into(), ..good[0].clone() }],
        vec![good[0].clone(), FlightData { data_header: vec![0xff; 64].into(), ..good[1].clone() }],
        vec![good[0].clone(), FlightData { data_body: vec![].into(), ..good[1].clone() }],
    ] {
        let status = refused(messages).await;
        said += &format!("{:?}: {}\n", status.code(), status.message());
    }
    expect![[r#"
        InvalidArgument: the rows are missing
        InvalidArgument: the flight descriptor's command is not {"feature_service": "…", "as_known": false}: EOF while parsing a value at line 1 column 0
        InvalidArgument: the flight descriptor's command is not {"feature_service": "…", "as_known": false}: EOF while parsing a value at line 1 column 0
        InvalidArgument: the flight descriptor's command is not {"feature_service": "…", "as_known": false}: invalid type: integer `1`, expected a string at line 1 column 21
        InvalidArgument: the flight descriptor's command is not {"feature_service": "…", "as_known": false}: missing field `feature_service` at line 1 column 23
        InvalidArgument: the rows cannot be read: Decode error: Error decoding root message: Type `i32` at position 544501614 is unaligned.
        InvalidArgument: the rows cannot be read: Decode error: Error decoding root message: Type `i32` at position 4294967295 is unaligned.
        InvalidArgument: the rows are not valid Arrow IPC
    "#]].assert_eq(&said);

    // Every byte of the request turned over: an answer or an error, and never a broken server.
    for (place, message) in good.iter().enumerate() {
        let turn = |bytes: &[u8], byte: usize| {
            let mut bytes = bytes.to_vec();
            bytes[byte] ^= 0xff;
            bytes.into()
        };
        let headers = (0..message.data_header.len())
            .map(|byte| FlightData { data_header: turn(&message.data_header, byte), ..message.clone() });
        let bodies = (0..message.data_body.len())
            .map(|byte| FlightData { data_body: turn(&message.data_body, byte), ..message.clone() });
        for (byte, message) in headers.chain(bodies).enumerate() {
            let mut hostile = good.clone();
            hostile[place] = message;
            if let Err(status) = exchange(&channel, hostile).await {
                let said = format!("message {place}, byte {byte}: {status:?}");
                // A length that is out of all bounds is too large, before anything is read.
                let codes = [tonic::Code::InvalidArgument, tonic::Code::ResourceExhausted];
                assert!(codes.contains(&status.code()), "{said}");
            }
        }
    }
    assert_eq!(exchange(&channel, good).await.unwrap(), 2);
    assert_eq!(server.client.predict("delay", [instance("N1", 1.0)]).await.unwrap().predictions, [76.5]);
}

/// The batches that come down.
async fn batches(channel: &Channel, spine: RecordBatch, received: usize) -> Vec<RecordBatch> {
    let command = format!("{{\"feature_service\": \"delay_v1\", \"received\": {received}}}");
    let messages = stream::iter(messages(spine, &command).await);
    let reply = FlightServiceClient::new(channel.clone()).do_exchange(messages).await.unwrap();
    let messages = reply.into_inner().map_err(FlightError::from);
    FlightRecordBatchStream::new_from_flight_data(messages).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_training_set_that_broke_off_goes_on_after_what_was_received() {
    let server = planes::serve().await;
    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    let rows = concat_batches(&four().schema(), &vec![four(); 1_000]).unwrap();
    let all = batches(&channel, rows.clone(), 0).await;
    assert!(all.len() > 2, "{}", all.len());
    for received in 0..=all.len() {
        assert_eq!(batches(&channel, rows.clone(), received).await, all[received..]);
    }
    assert_eq!(batches(&channel, rows, all.len() + 1).await, []);
}

/// What comes down for a ticket.
async fn got(channel: &Channel, ticket: String) -> Result<Vec<RecordBatch>, FlightError> {
    let reply = FlightServiceClient::new(channel.clone()).do_get(Ticket::new(ticket)).await;
    let messages = reply.map_err(|status| FlightError::Tonic(Box::new(status)))?.into_inner();
    FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from)).try_collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_view_that_broke_off_go_on_after_what_was_received() {
    let repository = planes::repository();
    let line =
        |row: usize| format!("N{},2013-01-01T10:00:00Z,2013-01-01T10:00:00Z,{row},9,UA\n", row % 40_000);
    let head = "tailnum,landed_at,loaded_at,delay,seats,carrier\n";
    repository.write("landings.csv", head.to_owned() + &(0..50_000).map(line).collect::<String>());
    let node = repository.open_applied().await;
    let server = Server::of(repository, node).await;
    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    for (rest, rows) in
        [(String::new(), 50_000), (format!(", \"latest\": true, \"at_us\": {}", january(9)), 40_000)]
    {
        let ticket = |received| format!("{{\"view\": \"plane_history\"{rest}, \"received\": {received}}}");
        let all = got(&channel, ticket(0)).await.unwrap();
        assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
        assert!(all.len() > 2, "{}", all.len());
        for received in 0..=all.len() {
            assert_eq!(got(&channel, ticket(received)).await.unwrap(), all[received..]);
        }
    }
    let refused = async |ticket: &str| got(&channel, ticket.to_owned()).await.unwrap_err().to_string();
    let latest = r#"{"view": "plane_history", "latest": true"#;
    assert!(refused(&format!("{latest}, \"received\": 1}}")).await.contains("named a moment (`at_us`)"));
    assert!(refused(&format!("{latest}, \"from_us\": 1}}")).await.contains("not of a stretch of time"));
    assert!(refused(r#"{"view": "plane_history", "at_us": 1}"#).await.contains("ask for these (`latest`)"));
    let twice = r#"{"view": "plane_history", "features": ["seats", "seats"]}"#;
    assert!(refused(twice).await.contains("`plane_history:seats` is named twice"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spine_breaks_off_when_its_rows_have_another_schema() {
    let server = planes::serve().await;
    let channel = Endpoint::from_shared(server.client.url().to_owned()).unwrap().connect_lazy();
    let other = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let other = RecordBatch::try_new(other, vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
    let mixed = vec![messages(four(), COMMAND).await[0].clone(), messages(other, COMMAND).await[1].clone()];
    let status = exchange(&channel, mixed).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_rows_come_in_batches_that_memory_holds() {
    const TEXT_BYTES: usize = 1 << 20;
    let definitions = "kind: Entity\nname: e\njoin_keys: [{name: k, type: int64}]\n---\nkind: Source\nname: s\n\
                       batch: {format: parquet, path: s.parquet}\nevent_timestamp: at\n---\nkind: FeatureView\nname: v\n\
                       entities: [e]\nsource: s\nfeatures: [text]\n---\nkind: FeatureService\nname: svc\nfeatures: [v]\n";
    let repository = Repository::new(definitions);
    let long = "x".repeat(TEXT_BYTES);
    repository.write_parquet(
        "s.parquet",
        &spine(&[
            ("k", Arc::new(Int64Array::from(vec![2]))),
            ("at", times(&[1])),
            ("text", texts(&[Some(&long)])),
        ]),
    );
    let node = repository.open_applied().await;
    let long_ones =
        spine(&[("k", Arc::new(Int64Array::from(vec![2; 300]))), ("event_timestamp", times(&[2; 300]))]);
    let counts: Vec<usize> =
        node.service("svc").training_batches(&long_ones, false).map(|batch| batch.num_rows()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 300);
    assert!(counts.iter().all(|count| *count <= 64), "{counts:?}");
}
