//! The fit of features to models, and the law that a row alone fills as it does in a batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray,
};
use arrow::datatypes::{Field, Float32Type, Schema};
use expect_test::expect;
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

fn fitted(features: &[Feature], signature: &Signature) -> Result<Fit, Mistakes> {
    fit(features, &Inputs::Columns(Vec::new()), signature)
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
    let fit = fitted(&features, &model(&[port("input", Element::Float32, &[None, Some(4)])])).unwrap();
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
    let fit = fitted(&features, &model(&[port("input", Element::Float32, &[None, None])])).unwrap();
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
    let fit = fitted(&[carrier, hour], &model(&inputs)).unwrap();
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
    let fit = fitted(&[key], &model(&[port("carrier", Element::String, &[None, Some(1)])])).unwrap();
    let vectors = batch(vec![("carrier", Arc::new(StringArray::from(vec![Some("UA"), None])))]);
    let error = fit.tensors(&vectors).unwrap_err().to_string();
    assert_eq!(error, "instance 1, column `carrier`: is null, which the model's input has no value for");
}

fn mistakes(features: &[Feature], inputs: &[Port]) -> String {
    fitted(features, &model(inputs)).unwrap_err().said.join("\n")
}

#[test]
fn what_does_not_fit_is_said_before_anything_runs() {
    let timestamp = crate::schema::timestamp();
    let any = DataType::List(Arc::new(Field::new("item", DataType::Float32, true)));
    let float = |name: &str| port(name, Element::Float32, &[None, Some(1)]);
    let cases = [
        mistakes(&[feature("x", &DataType::Float64)], &[port("m", Element::Float32, &[None, Some(2)])]),
        mistakes(
            &[feature("x", &DataType::Float64), feature("y", &DataType::Float64)],
            &[port("x", Element::Float32, &[Some(1)]), port("y", Element::Float32, &[Some(8)])],
        ),
        mistakes(&[feature("x", &DataType::Float64)], &[port("m", Element::Float32, &[None, None, None])]),
        mistakes(&[feature("x", &DataType::Float64)], &[port("m", Element::Float32, &[None, Some(2), None])]),
        mistakes(&[feature("x", &timestamp)], &[float("x")]),
        mistakes(&[feature("x", &any)], &[float("x")]),
        mistakes(&[feature("x", &DataType::Int64)], &[port("x", Element::Int64, &[None, Some(1)])]),
        mistakes(&[feature("x", &DataType::Float64)], &[port("x", Element::Int64, &[None, Some(1)])]),
        mistakes(&[feature("x", &DataType::Utf8)], &[float("x")]),
        mistakes(
            &[feature("x", &DataType::Float32)],
            &[port("x", Element::Other("complex64".into()), &[None])],
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
input `x` is [1] and input `y` is [8]: the first dimension is the row, and all inputs have as many
input `m` is [N, ?, ?], and its 1 value(s) a row go into that in several ways: say which under `inputs`, as in `{columns: ..., shape: [?, ?]}`
input `m` ([N, 2, ?]) takes a multiple of 2 value(s) a row, the columns have 1
`x`: timestamp does not become float32: derive a number from it, as `date_part('hour', ...)` does
`x`: list<float32> may have any length, a model's input has one: declare the length, as in `list<float32, 8>`
`x`: may be null, and the model's input is int64: declare `default:`
`x`: float64 does not become int64, it would lose its fraction: declare the feature's type or round it in a derived feature
`x`: string does not become float32: derive a number from it, or give the model a string input
`x`: float32 does not become complex64: a model takes tensors of numbers, bool or string; export it again with such inputs
no input of the model is named `distance` (did you mean `distanc`? known: distanc, hour); leave it out of the service's `outputs`, or say under `inputs` what it fills
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
        let matrix = fitted(&features, &model(&[port("m", element.clone(), &[None, Some(6)])])).unwrap();
        let ports: Vec<Port> = names
            .iter()
            .map(|name| port(name, element.clone(), &[None, Some(if *name == "e" { 2 } else { 1 })]))
            .collect();
        let named = fitted(&features, &model(&ports)).unwrap();

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
        let fit = fitted(&features, &model(&[port("m", Element::Float32, &[None, Some(1)])])).unwrap();
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
    let fit = fitted(&features, &model(&[port("input", Element::Float32, &[None, Some(4)])])).unwrap();
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

/// A model's `inputs`, as they are written.
fn inputs(yaml: &str) -> Inputs {
    let documents = format!(
        "{{kind: Entity, name: e, join_keys: [{{name: k, type: int64}}]}}
---
{{kind: Source, name: s, push: true, event_timestamp: at, columns: [{{name: k, type: int64}}, {{name: at, type: timestamp}}]}}
---
{{kind: FeatureView, name: v, entities: [e], source: s, features: [{{name: x, expr: '1'}}]}}
---
{{kind: FeatureService, name: f, features: [v]}}
---
kind: Model
name: m
versions: [{{version: 1, path: m.onnx, service: f, inputs: {yaml}}}]"
    );
    let definitions = feature_defs::parse(&[feature_defs::DefFile::new("m.yaml", documents)]).unwrap();
    match &definitions.models["m"].versions[0].artifact {
        feature_defs::Artifact::File(file) => file.inputs.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_map_fills_inputs_of_any_name_and_type_from_any_columns() {
    let mut city = feature("city", &DataType::Utf8);
    city.default = Some(Literal::String("?".to_owned()));
    let features = [
        city,
        feature("a", &DataType::Float64),
        feature("b", &DataType::Int32),
        feature("c", &DataType::Int32),
    ];
    let ports = [
        port("serving_default_x:0", Element::Float32, &[None, Some(2)]),
        port("the city", Element::String, &[None]),
    ];
    let map = inputs("{the city: city, \"serving_default_x:0\": [b, a]}");
    let fit = fit(&features, &map, &model(&ports)).unwrap();
    let vectors = batch(vec![
        ("city", Arc::new(StringArray::from(vec![None, Some("Ulm")]))),
        ("a", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ("b", Arc::new(Int32Array::from(vec![1, 2]))),
        ("c", Arc::new(Int32Array::from(vec![8, 9]))),
    ]);
    let tensors = fit.tensors(&vectors).unwrap();
    let shown: Vec<String> = floats(&tensors[0]).iter().map(f32::to_string).collect();
    assert_eq!((tensors[0].shape.as_slice(), shown.join(" ").as_str()), ([2, 2].as_slice(), "1 0.5 2 NaN"));
    assert_eq!(tensors[1].data, TensorData::String(vec!["?".to_owned(), "Ulm".to_owned()]));
    let told = |filled: &Filled| {
        let columns = filled
            .columns
            .iter()
            .map(|Filling { column, dtype, cast, null }| format!("{column} {dtype}, {cast}, null: {null}"));
        format!(
            "{} {} {}: {}",
            filled.input,
            filled.element,
            filled.shape,
            columns.collect::<Vec<_>>().join("; ")
        )
    };
    assert_eq!(
        fit.filled.iter().map(told).collect::<Vec<_>>(),
        [
            "serving_default_x:0 float32 [N, 2]: b int32, rounded, null: NaN; a float64, rounded, null: NaN",
            "the city string [N]: city string, , null: \"?\"",
        ]
    );
    // The way back: what the map leaves out is null.
    let cells: Vec<ArrayRef> = vec![
        Arc::new(arrow::array::Float32Array::from(vec![1.0, 0.5])),
        Arc::new(StringArray::from(vec!["Ulm"])),
    ];
    let back = fit.vectors(&vectors.schema(), &cells, 1).unwrap();
    // One column in two places has one value.
    let twice = [port("x", Element::Float32, &[None, Some(2)])];
    let map = inputs("{x: [a, a]}");
    let twice = super::fit(&features, &map, &model(&twice)).unwrap();
    let cells =
        |cells: [f32; 2]| vec![Arc::new(arrow::array::Float32Array::from(cells.to_vec())) as ArrayRef];
    assert!(twice.vectors(&vectors.schema(), &cells([1.0, 1.0]), 1).is_ok());
    assert!(twice.vectors(&vectors.schema(), &cells([1.0, 2.0]), 1).is_err());
    assert_eq!((back.column(0).as_string::<i32>().value(0), back.column(3).null_count()), ("Ulm", 1));
}

#[test]
fn a_map_that_does_not_fit_says_so() {
    let features = [feature("a", &DataType::Float64), feature("b", &DataType::Float64)];
    let ports =
        [port("x", Element::Float32, &[None, Some(2)]), port("y", Element::Float32, &[None, Some(1)])];
    let said = |yaml| fit(&features, &inputs(yaml), &model(&ports)).unwrap_err().said.join("\n");
    let all = [
        said("{x: [a, b]}"),
        said("{x: [a, d], y: b, z: a}"),
        said("{x: [a, b], y: {columns: b, shape: [1, 1]}}"),
        said("{x: {columns: [a, b], shape: [2]}, y: [a, b]}"),
    ];
    expect![[r#"
        `inputs` does not say what fills the model's input `y`
        the model has no input `z` (known: x, y)
        there is no column `d` (known: a, b)
        input `y` is [N, 1], not [N, 1, 1]
        input `y` takes 1 value(s) a row, the columns have 2"#]]
    .assert_eq(&all.join("\n"));
}

#[test]
fn names_that_are_nearly_right_are_offered_as_a_map() {
    let features = [
        feature("fixed_acidity", &DataType::Float64),
        feature("a", &DataType::Float64),
        feature("b", &DataType::Float64),
        feature("city", &DataType::Utf8),
    ];
    let ports = [
        port("numeric", Element::Float32, &[None, Some(2)]),
        port("serving_default_Fixed Acidity:0", Element::Float32, &[None, Some(1)]),
        port("onnx::text_0", Element::String, &[None]),
    ];
    let refused = fitted(&features, &model(&ports)).unwrap_err();
    assert_eq!(
        refused.paste.unwrap(),
        "\nif these belong together, in this order, write beside `path`:\n  inputs:\n    numeric: [a, b]\n    \
         \"serving_default_Fixed Acidity:0\": fixed_acidity\n    \"onnx::text_0\": city"
    );
    // Another column would be left over.
    let more: Vec<Feature> = features.into_iter().chain([feature("late", &DataType::Utf8)]).collect();
    let ports: Vec<Port> = ports.into_iter().take(2).collect();
    assert_eq!(fitted(&more, &model(&ports)).unwrap_err().paste, None);
}

#[test]
fn rows_have_the_dimensions_that_the_model_has() {
    let flat = [feature("e", &embedding(6))];
    let shape = |dims: &[Option<usize>], map: &Inputs| {
        let fit = fit(&flat, map, &model(&[port("x", Element::Float32, dims)]))?;
        Ok::<_, Mistakes>(fit.zeros(4).swap_remove(0).shape)
    };
    let unsaid = Inputs::Columns(Vec::new());
    assert_eq!(shape(&[None, Some(2), Some(3)], &unsaid).unwrap(), [4, 2, 3]);
    assert_eq!(shape(&[None, Some(3), None], &unsaid).unwrap(), [4, 3, 2]);
    assert_eq!(shape(&[], &unsaid).unwrap(), [4, 6]);
    assert_eq!(shape(&[None, None, None], &inputs("{x: {columns: e, shape: [2, 3]}}")).unwrap(), [4, 2, 3]);
    assert_eq!(shape(&[], &inputs("{x: {columns: [e], shape: [6, 1]}}")).unwrap(), [4, 6, 1]);
    assert!(shape(&[None, None, None], &unsaid).is_err());
    // What is beyond counting is beyond fitting.
    let huge = inputs("{x: {columns: e, shape: [65536, 65536, 65536, 65536]}}");
    assert!(shape(&[None, None, None, None, None], &huge).is_err());
    assert!(shape(&[None, Some(1 << 40), Some(1 << 40)], &unsaid).is_err());
    assert!(shape(&[Some(0), Some(6)], &unsaid).is_err());
    // Lists within lists bring their own.
    let nested = DataType::FixedSizeList(Arc::new(Field::new("item", embedding(2), true)), 3);
    let fit = fitted(&[feature("e", &nested)], &model(&[port("x", Element::Float32, &[None, None, None])]))
        .unwrap();
    assert_eq!(fit.zeros(1)[0].shape, [1, 3, 2]);
    let inner = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [Some([Some(1.0), None]), None, Some([Some(3.0), Some(4.0)])],
        2,
    );
    let item = Arc::new(Field::new("item", inner.data_type().clone(), true));
    let lists = FixedSizeListArray::new(item, 3, Arc::new(inner), None);
    let filled = fit.tensors(&batch(vec![("e", Arc::new(lists))])).unwrap();
    let shown: Vec<String> = floats(&filled[0]).iter().map(f32::to_string).collect();
    assert_eq!(shown.join(" "), "1 NaN NaN NaN 3 4");
}

#[test]
fn what_an_element_does_not_hold_is_refused_with_its_row() {
    let number = |dtype: &DataType| Feature { null: Null::Never, ..feature("x", dtype) };
    let filled = |dtype: &DataType, element: Element, column: ArrayRef| {
        let fit = fitted(&[number(dtype)], &model(&[port("m", element, &[None])])).unwrap();
        fit.tensors(&batch(vec![("x", column)])).map(|mut tensors| tensors.swap_remove(0).data)
    };
    let whole =
        |element, numbers: Vec<i64>| filled(&DataType::Int64, element, Arc::new(Int64Array::from(numbers)));
    assert_eq!(whole(Element::Int8, vec![-128, 127]).unwrap(), TensorData::Int8(vec![-128, 127]));
    assert_eq!(whole(Element::UInt64, vec![i64::MAX]).unwrap(), TensorData::UInt64(vec![i64::MAX as u64]));
    let half = |x: f32| half::f16::from_f32(x);
    assert_eq!(whole(Element::Float16, vec![2049]).unwrap(), TensorData::Float16(vec![half(2048.0)]));
    let reals = |numbers: Vec<f64>| {
        filled(&DataType::Float64, Element::Float16, Arc::new(Float64Array::from(numbers)))
    };
    assert_eq!(reals(vec![f64::INFINITY]).unwrap(), TensorData::Float16(vec![half::f16::INFINITY]));
    let said = [
        whole(Element::UInt8, vec![1, -1]).unwrap_err().to_string(),
        whole(Element::Int32, vec![1 << 31]).unwrap_err().to_string(),
        reals(vec![1.0, 70_000.0]).unwrap_err().to_string(),
    ];
    assert_eq!(
        said.join("\n"),
        "instance 1, column `x`: lies beyond what uint8 holds, as the model's input is\n\
         instance 0, column `x`: lies beyond what int32 holds, as the model's input is\n\
         instance 1, column `x`: lies beyond what float16 holds, as the model's input is"
    );
}

#[test]
fn a_default_stands_for_a_whole_list_and_not_for_an_item() {
    let list = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Int32, true)), 2);
    let mut ids = feature("ids", &list);
    ids.default = Some(Literal::List(vec![Literal::Int(7), Literal::Int(8)]));
    let fit = fitted(&[ids], &model(&[port("m", Element::Int64, &[None, Some(2)])])).unwrap();
    let lists = |items: Vec<Option<Vec<Option<i32>>>>| {
        let lists = FixedSizeListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(items, 2);
        fit.tensors(&batch(vec![("ids", Arc::new(lists))])).map(|mut tensors| tensors.swap_remove(0).data)
    };
    let filled = lists(vec![None, Some(vec![Some(1), Some(2)])]).unwrap();
    assert_eq!(filled, TensorData::Int64(vec![7, 8, 1, 2]));
    assert!(lists(vec![Some(vec![Some(1), None])]).is_err());
    assert_eq!(fit.defaults(1).unwrap()[0].data, TensorData::Int64(vec![7, 8]));
}

proptest! {
    /// Whatever the batch, a row of it fills as it does alone, and goes back to what it was.
    #[test]
    fn pieces_of_a_tensor_put_together_are_the_tensor(rows in 1_usize..9, cut in 0_usize..9, dims in prop::collection::vec(1_usize..4, 0..3)) {
        let width: usize = dims.iter().product();
        let shape = std::iter::once(rows).chain(dims).collect();
        let data = TensorData::Int16((0..rows * width).map(|cell| cell as i16).collect());
        let all = Tensor { name: "x".to_owned(), shape, data };
        let cut = cut % rows;
        let mut first = all.slice(0, cut);
        first.append(all.slice(cut, rows - cut));
        prop_assert_eq!(&first, &all);
        let mut padded = all.slice(0, cut + 1);
        padded.pad(2);
        prop_assert_eq!(padded.shape[0], cut + 3);
        prop_assert_eq!(padded.slice(cut, 1).data, padded.slice(cut + 2, 1).data);
    }
}
