//! The fit of features to models, and the law that a row alone fills as it does in a batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow::datatypes::{Field, Float32Type, Schema};
use proptest::prelude::*;

use super::*;

fn port(name: &str, element: Element, shape: &[Option<usize>]) -> Port {
    Port { name: name.to_owned(), element, shape: shape.to_vec() }
}

fn feature(name: &str, dtype: &DataType) -> Feature {
    Feature { name: name.to_owned(), dtype: dtype.clone(), default: None, null: Null::Possible }
}

fn model(inputs: &[Port]) -> Signature {
    Signature { inputs: inputs.to_vec(), outputs: Vec::new() }
}

fn embedding(length: i32) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), length)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    match &tensor.data {
        TensorData::Float32(cells) => cells.clone(),
        other => panic!("expected float32, got {other:?}"),
    }
}

#[test]
fn one_tensor_holds_the_columns_side_by_side() {
    let list = embedding(2);
    let features = [feature("late", &DataType::Boolean), feature("n", &DataType::Int64), feature("e", &list)];
    let fit = fit(&features, &model(&[port("input", Element::Float32, &[None, Some(4)])])).unwrap();
    let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [Some([Some(0.5), None]), None, Some([Some(1.5), Some(2.5)])],
        2,
    );
    let vectors = batch(vec![
        ("late", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("n", Arc::new(Int64Array::from(vec![Some(7), None, Some(-1)]))),
        ("e", Arc::new(lists)),
    ]);
    let tensors = fit.tensors(&vectors).unwrap();
    assert_eq!((tensors[0].name.as_str(), tensors[0].shape.as_slice()), ("input", [3, 4].as_slice()));
    let shown: Vec<String> = floats(&tensors[0]).iter().map(f32::to_string).collect();
    assert_eq!(shown.join(" "), "1 7 0.5 NaN 0 NaN NaN NaN NaN -1 1.5 2.5");
}

#[test]
fn a_slice_of_a_batch_fills_like_the_batch() {
    let list = embedding(2);
    let features = [feature("e", &list)];
    let fit = fit(&features, &model(&[port("input", Element::Float32, &[None, None])])).unwrap();
    let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [Some([Some(1.0), Some(2.0)]), Some([Some(3.0), Some(4.0)])],
        2,
    );
    let vectors = batch(vec![("e", Arc::new(lists))]).slice(1, 1);
    assert_eq!(floats(&fit.tensors(&vectors).unwrap()[0]), [3.0, 4.0]);
}

#[test]
fn named_inputs_take_strings_and_defaults_in_the_models_order() {
    let carrier_default = Literal::String("?".to_owned());
    let mut carrier = feature("carrier", &DataType::Utf8);
    carrier.default = Some(carrier_default.clone());
    let mut hour = feature("hour", &DataType::Int32);
    hour.default = Some(Literal::Int(-1));
    let inputs = [port("hour", Element::Int64, &[None]), port("carrier", Element::String, &[None, Some(1)])];
    let fit = fit(&[carrier, hour], &model(&inputs)).unwrap();
    let vectors = batch(vec![
        ("carrier", Arc::new(StringArray::from(vec![Some("UA"), None]))),
        ("hour", Arc::new(Int32Array::from(vec![None, Some(5)]))),
    ]);
    let tensors = fit.tensors(&vectors).unwrap();
    assert_eq!((&tensors[0].shape, &tensors[0].data), (&vec![2], &TensorData::Int64(vec![-1, 5])));
    let carriers = TensorData::String(vec!["UA".to_owned(), "?".to_owned()]);
    assert_eq!((&tensors[1].shape, &tensors[1].data), (&vec![2, 1], &carriers));
    assert_eq!(fit.zeros(1)[0].data, TensorData::Int64(vec![0]));
    assert_eq!(fit.ones(1)[0].data, TensorData::Int64(vec![1]));
}

#[test]
fn a_null_join_key_fails_its_request() {
    let mut key = feature("carrier", &DataType::Utf8);
    key.null = Null::Refused;
    let fit = fit(&[key], &model(&[port("carrier", Element::String, &[None, Some(1)])])).unwrap();
    let vectors = batch(vec![("carrier", Arc::new(StringArray::from(vec![Some("UA"), None])))]);
    let error = fit.tensors(&vectors).unwrap_err().to_string();
    assert_eq!(error, "instance 1, column `carrier`: is null, which the model's input has no value for");
}

fn mistakes(features: &[Feature], inputs: &[Port]) -> String {
    fit(features, &model(inputs)).unwrap_err().join("\n")
}

#[test]
fn what_does_not_fit_is_said_before_anything_runs() {
    let timestamp = crate::schema::timestamp();
    let any = DataType::List(Arc::new(Field::new("item", DataType::Float32, true)));
    let float = |name: &str| port(name, Element::Float32, &[None, Some(1)]);
    let cases = [
        mistakes(&[feature("x", &DataType::Float64)], &[port("m", Element::Float32, &[None, Some(2)])]),
        mistakes(&[feature("x", &DataType::Float64)], &[port("m", Element::Float32, &[Some(1), Some(1)])]),
        mistakes(&[feature("x", &timestamp)], &[float("x")]),
        mistakes(&[feature("x", &any)], &[float("x")]),
        mistakes(&[feature("x", &DataType::Int64)], &[port("x", Element::Int64, &[None, Some(1)])]),
        mistakes(&[feature("x", &DataType::Float64)], &[port("x", Element::Int64, &[None, Some(1)])]),
        mistakes(&[feature("x", &DataType::Int64)], &[port("x", Element::Int32, &[None, Some(1)])]),
        mistakes(&[feature("x", &DataType::Utf8)], &[float("x")]),
        mistakes(
            &[feature("x", &DataType::Float32)],
            &[port("x", Element::Other("float16".into()), &[None])],
        ),
        mistakes(
            &[feature("distance", &DataType::Float64), feature("hour", &DataType::Int32)],
            &[float("distanc"), float("hour")],
        ),
        mistakes(&[], &[]),
    ];
    assert_eq!(
            cases.join("\n"),
            "\
input `m` takes 2 value(s) a row, the columns have 1
input `m` takes exactly 1 row(s) at a time: export the model with a free first dimension
`x`: timestamp does not become float32: derive a number from it, as `date_part('hour', ...)` does
`x`: list<float32> may have any length, a model's input has one: declare the length, as in `list<float32, 8>`
`x`: may be null, and the model's input is int64: declare `default:`
`x`: float64 does not become int64, it would lose its fraction: declare the feature's type or round it in a derived feature
`x`: int64 does not become int32, it may be too large: declare the feature's `type: int32`
`x`: string does not become float32: derive a number from it, or give the model a string input
`x`: float32 does not become float16: a model takes float32, float64, int32, int64, bool or string; export it again
no input of the model is named `distance` (did you mean `distanc`? known: distanc, hour); leave it out of the service's `outputs`, or of the step's `inputs`
no column is named `distanc`, as the model's input is (did you mean `distance`? known: distance, hour)
the model has no input"
        );
}

#[test]
fn both_shapes_are_shown_side_by_side() {
    let features = [feature("distance", &DataType::Float64), feature("carrier", &DataType::Utf8)];
    let shapes = side_by_side(
        "feature service `delay_v1`",
        &features,
        &model(&[port("input", Element::Float32, &[None, Some(3)])]),
    );
    assert_eq!(
        shapes,
        "\
feature service `delay_v1`  |  model
  distance  float64         |    input  float32 [N, 3]
  carrier  string           |"
    );
}

fn bits(tensors: &[Tensor]) -> Vec<Vec<u64>> {
    let of = |tensor: &Tensor| match &tensor.data {
        TensorData::Float32(cells) => cells.iter().map(|x| u64::from(x.to_bits())).collect(),
        TensorData::Float64(cells) => cells.iter().map(|x| x.to_bits()).collect(),
        other => panic!("no floats: {other:?}"),
    };
    tensors.iter().map(of).collect()
}

proptest! {
    #[test]
    fn one_row_at_a_time_equals_the_batch(
        rows in prop::collection::vec(
            (any::<Option<bool>>(), any::<Option<i32>>(), any::<Option<i64>>(), any::<Option<f64>>(),
             any::<Option<(Option<f32>, Option<f32>)>>()),
            1..40,
        ),
        double in any::<bool>(),
    ) {
        let list = embedding(2);
        let types = [DataType::Boolean, DataType::Int32, DataType::Int64, DataType::Float64, list];
        let names = ["a", "b", "c", "d", "e"];
        let features: Vec<Feature> = names.iter().zip(&types).map(|(n, t)| feature(n, t)).collect();
        let element = if double { Element::Float64 } else { Element::Float32 };
        let matrix = fit(&features, &model(&[port("m", element.clone(), &[None, Some(6)])])).unwrap();
        let ports: Vec<Port> = names
            .iter()
            .map(|name| port(name, element.clone(), &[None, Some(if *name == "e" { 2 } else { 1 })]))
            .collect();
        let named = fit(&features, &model(&ports)).unwrap();

        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| r.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|r| r.1).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|r| r.2).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.3).collect::<Float64Array>()),
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                rows.iter().map(|r| r.4.map(|(x, y)| [x, y])), 2,
            )),
        ];
        let fields: Vec<Field> =
            names.iter().zip(&types).map(|(name, dtype)| Field::new(*name, dtype.clone(), true)).collect();
        let vectors = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();

        let all = bits(&matrix.tensors(&vectors).unwrap());
        let by_name = bits(&named.tensors(&vectors).unwrap());
        for row in 0..rows.len() {
            let one = vectors.slice(row, 1);
            let single = bits(&matrix.tensors(&one).unwrap());
            prop_assert_eq!(&single[0][..], &all[0][row * 6..row * 6 + 6]);
            // The named form holds the same cells, cut at the columns.
            let singles: Vec<u64> = bits(&named.tensors(&one).unwrap()).concat();
            prop_assert_eq!(&singles, &single[0]);
            let cut: Vec<u64> = by_name.iter().flat_map(|cells| {
                let width = cells.len() / rows.len();
                cells[row * width..(row + 1) * width].to_vec()
            }).collect();
            prop_assert_eq!(&cut, &single[0]);
        }
    }

    #[test]
    fn a_matrix_cell_is_a_plain_cast(values in prop::collection::vec(any::<Option<f64>>(), 1..50)) {
        let features = [feature("x", &DataType::Float64)];
        let fit = fit(&features, &model(&[port("m", Element::Float32, &[None, Some(1)])])).unwrap();
        let vectors = batch(vec![("x", Arc::new(Float64Array::from(values.clone())))]);
        let oracle: Vec<u32> =
            values.iter().map(|x| x.map_or(f32::NAN, |x| x as f32).to_bits()).collect();
        let cells = floats(&fit.tensors(&vectors).unwrap()[0]);
        prop_assert_eq!(cells.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), oracle);
    }
}

#[test]
fn vectors_cut_out_of_tensors_fill_the_same_tensors() {
    let list = embedding(2);
    let features = [feature("late", &DataType::Boolean), feature("n", &DataType::Int64), feature("e", &list)];
    let fit = fit(&features, &model(&[port("input", Element::Float32, &[None, Some(4)])])).unwrap();
    let fields = features.iter().map(|feature| Field::new(feature.name.clone(), feature.dtype.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let cut = |cells: Vec<f32>, rows| {
        let cells: ArrayRef = Arc::new(arrow::array::Float32Array::from(cells));
        fit.vectors(&schema, &[cells], rows)
    };
    let cells =
        vec![1.0, 7.0, 0.5, f32::NAN, 0.0, f32::NAN, f32::NAN, -2.5, f32::NAN, -16_777_216.0, 3.0, 4.0];
    let vectors = cut(cells.clone(), 3).unwrap();
    assert_eq!((vectors.column(0).null_count(), vectors.column(1).null_count()), (1, 1));
    let shown = |cells: &[f32]| cells.iter().map(f32::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&floats(&fit.tensors(&vectors).unwrap()[0])), shown(&cells));

    let said = |cells, rows| cut(cells, rows).unwrap_err().to_string();
    assert_eq!(said(vec![0.0; 6], 2), "input `input`: takes 4 value(s) a row, and 2 row(s) bring 6");
    assert_eq!(said(vec![0.0, 1.5, 0.0, 0.0], 1), "input `input`, feature `n`: 1.5 is not a whole number");
    assert_eq!(
        said(vec![2.0, 1.0, 0.0, 0.0], 1),
        "input `input`, feature `late`: 2 is neither 0 nor 1, as a bool is"
    );
    assert_eq!(cut(vec![], 0).unwrap().num_rows(), 0);
}
