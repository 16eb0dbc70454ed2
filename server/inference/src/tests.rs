use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use bytes::Bytes;
use expect_test::{Expect, expect};
use feature_defs::{Artifact, DefFile, Inputs, Loc, ModelFile};
use quern_engine::SourceSchemas;

use std::sync::Arc;

use arrow::array::RecordBatch;
use quern_engine::ServicePlan;

use super::*;

/// Where the set-up installs ONNX Runtime.
fn installed() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/quern"));
    let cache = std::env::var_os("QUERN_CACHE").map(PathBuf::from).or_else(home)?;
    let pythons = std::fs::read_dir(cache.join("venv/lib")).ok()?.flatten();
    pythons.map(|python| python.path().join("site-packages/onnxruntime/capi")).find(|path| path.is_dir())
}

fn runtime() -> Runtime {
    // A test of this very program is the worker: what it prints goes nowhere.
    let path = std::env::current_exe().unwrap();
    let arguments = ["--exact", "tests::worker", "--ignored", "--nocapture"].map(Into::into).to_vec();
    Runtime::load(installed().as_deref()).unwrap().with_worker(Program { path, arguments })
}

fn of_file(
    runtime: &Runtime,
    onnx: &[u8],
    service: &ServicePlan,
    rules: &Rules,
) -> std::result::Result<Model, String> {
    let file = ModelFile { path: String::new(), inputs: Inputs::Columns(Vec::new()), outputs: Vec::new() };
    let (artifact, files) = (Artifact::File(file), [Bytes::copy_from_slice(onnx)]);
    let made = Made {
        artifact: &artifact,
        loc: &Loc::start("model.yaml"),
        files: &files,
        service,
        examples: None,
        asks: true,
    };
    Model::load(runtime, &made, rules).map_err(|mistake| mistake.cause)
}

#[test]
#[ignore = "the worker that the other tests start"]
fn worker() {
    serve().unwrap();
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("../../tests/fixtures/{name}.onnx")).unwrap()
}

const VIEW: &str = "
kind: Entity
name: e
join_keys: [{name: k, type: string}]
---
kind: Source
name: rows
push: true
event_timestamp: at
columns: [{name: k, type: string}, {name: at, type: timestamp}, {name: x, type: float64}]
---
kind: FeatureView
name: v
entities: [e]
source: rows
features: [{name: x}]
";

/// A feature service that hands its request columns on.
fn service(request: &str) -> Arc<ServicePlan> {
    let names: Vec<&str> =
        request.split("name: ").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
    let outputs = names.join(", ");
    let text = format!(
        "{VIEW}---\nkind: FeatureService\nname: s\nrequest: {request}\nfeatures: [{{view: v}}]\noutputs: [{outputs}]\n"
    );
    let definitions = feature_defs::parse(&[DefFile::new("s.yaml", text)]).unwrap();
    let rows = Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("at", quern_engine::schema::timestamp(), true),
        Field::new("x", DataType::Float64, true),
    ]);
    let sources = SourceSchemas::from([("rows".to_owned(), Arc::new(rows))]);
    let catalog = quern_engine::compile(definitions, &sources).unwrap();
    Arc::clone(&catalog.services["s"])
}

fn three_floats() -> Arc<ServicePlan> {
    service("[{name: a, type: float64}, {name: b, type: float64}, {name: c, type: int64}]")
}

fn batch(service: &ServicePlan, columns: Vec<ArrayRef>) -> RecordBatch {
    let cast =
        |(column, field): (ArrayRef, &Arc<Field>)| arrow::compute::cast(&column, field.data_type()).unwrap();
    let columns = columns.into_iter().zip(service.outputs.fields()).map(cast).collect();
    RecordBatch::try_new(Arc::clone(&service.outputs), columns).unwrap()
}

fn floats(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn to_text(outputs: &RecordBatch) -> String {
    arrow::util::pretty::pretty_format_batches(std::slice::from_ref(outputs)).unwrap().to_string()
}

fn check(predictions: &Predictions, expected: Expect) {
    expected.assert_eq(&to_text(&predictions.outputs));
}

#[test]
fn one_matrix_in_one_value_out() {
    let service = three_floats();
    let model = of_file(&runtime(), &fixture("linear"), &service, &Rules::default()).unwrap();
    assert_eq!(model.digest.len(), 64);
    assert!(model.sessions() >= 1);
    let columns = vec![
        floats(&[Some(1.0), Some(0.25), None]),
        floats(&[Some(2.0), Some(0.0), Some(1.0)]),
        floats(&[Some(3.0), Some(-1.0), Some(1.0)]),
    ];
    let vectors = batch(&service, columns);
    check(
        &model.predict(&vectors).unwrap(),
        expect![[r#"
        +--------+
        | y      |
        +--------+
        | 321.5  |
        | -99.25 |
        | NaN    |
        +--------+"#]],
    );
    check(
        &model.predict(&vectors.slice(0, 0)).unwrap(),
        expect![[r#"
        +---+
        | y |
        +---+
        +---+"#]],
    );
    let one_by_one: Vec<_> =
        (0..3).map(|row| model.predict(&vectors.slice(row, 1)).unwrap().outputs).collect();
    let all = model.predict(&vectors).unwrap().outputs;
    assert_eq!(
        arrow::compute::concat_batches(all.schema_ref(), &one_by_one).unwrap().slice(0, 2),
        all.slice(0, 2)
    );
}

#[test]
fn named_inputs_in_named_outputs_out() {
    let service = service("[{name: carrier, type: string, default: none}, {name: distance, type: float32}]");
    let model = of_file(&runtime(), &fixture("named"), &service, &Rules::default()).unwrap();
    let vectors = batch(
        &service,
        vec![
            Arc::new(StringArray::from(vec![Some("UA"), Some("DL"), None])),
            floats(&[Some(1.5), Some(0.0), None]),
        ],
    );
    check(
        &model.predict(&vectors).unwrap(),
        expect![[r#"
            +------+------------+------+-------+
            | code | both       | name | is_ua |
            +------+------------+------+-------+
            | 1    | [1.5, 3.0] | UA   | true  |
            | 2    | [0.0, 0.0] | DL   | false |
            | -1   | [NaN, NaN] | none | false |
            +------+------------+------+-------+"#]],
    );
    let nul = batch(&service, vec![Arc::new(StringArray::from(vec!["a\0b"])), floats(&[Some(1.0)])]);
    assert!(matches!(model.predict(&nul), Err(error) if error.kind() == quern_base::Kind::InvalidArgument));
}

#[test]
fn a_zipmap_is_a_map_in_each_row() {
    let service = three_floats();
    for (name, key) in [("classifier", DataType::Int64), ("classifier_text", DataType::Utf8)] {
        let model = of_file(&runtime(), &fixture(name), &service, &Rules::default()).unwrap();
        let columns = (0..3).map(|_| floats(&[Some(1.0), Some(0.0)])).collect();
        let outputs = model.predict(&batch(&service, columns)).unwrap().outputs;
        let labels = outputs.column_by_name("output_label").unwrap();
        assert_eq!((labels.len(), labels.data_type()), (2, &key));
        let chances = outputs.column_by_name("output_probability").unwrap().as_map().value(0);
        let sum: f32 = chances.column(1).as_primitive::<Float32Type>().values().iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{chances:?}");
        assert_eq!(chances.len(), 3);
    }
}

#[test]
fn what_cannot_go_live_is_refused_with_words() {
    let service = three_floats();
    let refused = |onnx: &[u8]| of_file(&runtime(), onnx, &service, &Rules::default()).unwrap_err();
    assert!(refused(b"").starts_with("ONNX Runtime does not load the file: "), "{}", refused(b""));
    assert!(refused(b"no model at all").starts_with("ONNX Runtime does not load the file: "));
    let linear = fixture("linear");
    assert!(refused(&linear[..linear.len() / 2]).starts_with("ONNX Runtime does not load the file: "));
    expect!["tried on 1 row(s) of zeros, the model fails: reading the model's output `sum`: it has the shape [], which is not one row for each of the 1 that went in"]
    .assert_eq(&refused(&fixture("total")));
    expect![[r#"
        the model does not fit feature service `s`:
          - no input of the model is named `a` (known: carrier, distance); leave it out of the service's `outputs`, or say under `inputs` what it fills
          - no input of the model is named `b` (known: carrier, distance); leave it out of the service's `outputs`, or say under `inputs` what it fills
          - no input of the model is named `c` (known: carrier, distance); leave it out of the service's `outputs`, or say under `inputs` what it fills
          - no column is named `distance`, as the model's input is (known: a, b, c)
          - no column is named `carrier`, as the model's input is (known: a, b, c)
        feature service `s`  |  model
          a  float64         |    distance  float32 [N, 1]
          b  float64         |    carrier  string [N, 1]
          c  int64           |"#]]
    .assert_eq(&refused(&fixture("named")));
}

/// Why a fixture does not go live.
fn refused(name: &str) -> String {
    of_file(&runtime(), &fixture(name), &three_floats(), &Rules::default()).unwrap_err()
}

#[test]
fn fault_05_weights_in_other_files_are_named() {
    expect!["the file lacks its weights: they lie in `weights.data`"].assert_eq(&refused("external"));
}

#[test]
fn fault_06_custom_operators_are_named() {
    expect!["the model needs the custom operators `com.example.Guess`, and only those of ONNX and ONNX Runtime itself are there; export it without them"].assert_eq(&refused("custom"));
}

#[test]
fn only_what_may_end_or_hang_a_process_is_isolated() {
    let graph = |name: &str| graph::Model::of(&fixture(name)).unwrap();
    for name in ["linear", "named", "classifier", "classifier_text", "fragile"] {
        assert_eq!(bounds::out_of_bounds(&graph(name)), None, "{name}");
        assert_eq!(sizes::by_values(&graph(name)), None, "{name}");
    }
    assert_eq!(sizes::by_values(&graph("hungry")).as_deref(), Some("ConstantOfShape"));
    for (name, operator) in [("ratio", "Div"), ("parts", "Div"), ("slow", "Loop"), ("endless", "Loop")] {
        assert_eq!(bounds::out_of_bounds(&graph(name)).as_deref(), Some(operator), "{name}");
    }
    let told = |isolation| {
        let rules = Rules { isolation, ..Rules::default() };
        of_file(&runtime(), &fixture("linear"), &three_floats(), &rules).unwrap().is_isolated()
    };
    use feature_defs::Isolation;
    assert_eq!([Isolation::Auto, Isolation::Process, Isolation::Thread].map(told), [false, true, false]);
}

#[test]
fn weights_that_are_put_in_make_the_file_that_it_would_have_been() {
    let external = fixture("external");
    assert_eq!(weights::files(&external).into_iter().collect::<Vec<_>>(), ["weights.data"]);
    let put_in = |file: &str, bytes: &[u8]| {
        weights::put_in(&external, &[(file.to_owned(), Bytes::copy_from_slice(bytes))].into())
    };
    let numbers: Vec<u8> = [1.0_f32, 10.0, 100.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(put_in("weights.data", &numbers).unwrap(), fixture("linear"));
    expect!["`weights.data` is not there"].assert_eq(&put_in("weights.bin", &numbers).unwrap_err());
    // Nothing lies elsewhere, so nothing is touched.
    assert_eq!(weights::put_in(&fixture("linear"), &BTreeMap::new()).unwrap(), fixture("linear"));
    for bit in 0..external.len() * 8 {
        let mut onnx = external.clone();
        onnx[bit / 8] ^= 1 << (bit % 8);
        let files = weights::files(&onnx).into_iter().map(|file| (file, Bytes::copy_from_slice(&numbers)));
        // Whatever it is: no crash, and no more than there is.
        if let Ok(whole) = weights::put_in(&onnx, &files.collect()) {
            assert!(whole.len() <= onnx.len() + numbers.len() * 4, "bit {bit}");
        }
    }
}

/// A damaged file is refused or answers something; it does not take the process down.
#[test]
fn a_flipped_bit_never_crashes() {
    let (runtime, service) = (runtime(), three_floats());
    let sound = fixture("linear");
    let outcomes = (0..sound.len() * 8).step_by(7).map(|bit| {
        let mut onnx = sound.clone();
        onnx[bit / 8] ^= 1 << (bit % 8);
        of_file(&runtime, &onnx, &service, &Rules::default()).is_ok()
    });
    assert!(outcomes.filter(|loads| *loads).count() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_the_sessions() {
    let service = three_floats();
    let batching = feature_defs::Batching { queue_rows: 1_000_000, ..Default::default() };
    let model = Arc::new(
        of_file(&runtime(), &fixture("linear"), &service, &Rules { batching, ..Rules::default() }).unwrap(),
    );
    let callers = (0..64).map(|caller| {
        let (model, service) = (Arc::clone(&model), Arc::clone(&service));
        tokio::spawn(async move {
            for round in 0..50 {
                let rows = 1 + (caller + round) % 7 * 500;
                let value = f64::from(caller as u32);
                let columns = (0..3).map(|_| floats(&vec![Some(value); rows])).collect();
                let predictions =
                    predict(&model, &batch(&service, columns), Limits::default()).await.unwrap();
                let answer = predictions.outputs.column(0);
                let answer = arrow::array::AsArray::as_primitive::<arrow::datatypes::Float32Type>(answer);
                assert!(answer.values().iter().all(|y| *y == (111.0 * value + 0.5) as f32));
                assert_eq!(answer.len(), rows);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[test]
fn what_another_server_tells_is_bounded() {
    use quern_oip::messages::{ModelMetadataResponse, TensorMetadata};

    let tensor = |name: &str, shape: Vec<i64>| TensorMetadata {
        name: name.to_owned(),
        datatype: "FP64".to_owned(),
        shape,
    };
    let good = || vec![tensor("x", vec![-1, 3])];
    let said = |inputs, outputs| {
        let told = ModelMetadataResponse { inputs, outputs, ..ModelMetadataResponse::default() };
        remote::bounded(&told).err().unwrap_or_default()
    };
    assert_eq!(said(good(), good()), "");
    let all = [
        said(good(), vec![tensor("y", vec![1; 3000])]),
        said(vec![tensor("x", vec![1 << 40])], good()),
        said(good(), vec![tensor("y", vec![-1]), tensor("y", vec![-1])]),
        said(vec![tensor("", vec![-1])], good()),
        said((0..5_000).map(|i| tensor(&i.to_string(), vec![-1])).collect(), good()),
    ];
    expect![[r#"
        output `y` has 3000 dimensions, at most 8 are read
        input `x` has 1099511627776 rows at a time, at most 65536 are sent
        two outputs of the model are called `y`
        an input of the model has a name of 0 bytes
        the model has 5000 inputs, and at most 4096 are read"#]]
    .assert_eq(&all.join("\n"));
}

#[test]
fn lists_of_nothing_are_no_room_for_many() {
    use crate::outputs::{Says, Shape, folded};

    let nothing: ArrayRef = Arc::new(Float64Array::from(Vec::<f64>::new()));
    let says = Says { is_plain: false, counts_rows: Some(true) };
    let folded =
        |shape: &[i64]| folded(Arc::clone(&nothing), shape, Shape { rows: 2, is_alone: false }, says);
    assert_eq!(folded(&[2, 3, 0]).unwrap().len(), 2);
    assert!(folded(&[2, 2_147_483_647, 0]).is_err());
    assert!(folded(&[2, 3, 4]).is_err());
}

#[test]
fn of_one_row_alone_an_output_counts_rows_where_its_shape_may() {
    use crate::outputs::{Says, Shape, folded};

    let alone = |cells: &[f64], came: &[i64], declared: &[i64]| {
        let cells: ArrayRef = Arc::new(Float64Array::from(cells.to_vec()));
        let went_in = Shape { rows: 1, is_alone: true };
        folded(cells, came, went_in, Says::of_shape(declared)).map(|column| column.data_type().to_string())
    };
    // A label, and a list of two, of a file that leaves its rows open.
    assert_eq!(alone(&[1.0], &[1], &[-1]).unwrap(), "Float64");
    assert_eq!(alone(&[1.0, 2.0], &[1, 2], &[-1, 2]).unwrap(), alone(&[1.0, 2.0], &[1, 2], &[1, 2]).unwrap());
    assert!(alone(&[1.0, 2.0], &[2], &[-1]).is_err());
    // What counts no rows is the row's.
    assert_eq!(alone(&[1.0, 2.0], &[2], &[2]).unwrap(), alone(&[1.0, 2.0], &[1, 2], &[-1, 2]).unwrap());
    assert_eq!(alone(&[1.0], &[], &[]).unwrap(), "Float64");
}
