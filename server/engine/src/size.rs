//! How many bytes are the values of some rows, and how many may they be together?
//!
//! One stored text may be asked for by every row of a request, and be copied for each. So whoever makes columns counts
//! first, and refuses what is too much together: who asked then asks for fewer rows at a time.

use arrow::array::{
    AnyDictionaryArray, Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch, make_array,
};
use arrow::datatypes::{ByteViewType, DataType, FieldRef};

use crate::EngineError;

/// What the values of several rows may be together. A single row may be more: it cannot be asked for in parts.
pub const TOGETHER_BYTES_MAX: usize = 64 << 20;

/// How many bytes the rows of a batch are, without what else is in the memory that they share.
pub fn row_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(column_bytes).sum()
}

/// The same, where what is written once for many rows is not spelled out.
pub fn packed_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(slice_bytes).sum()
}

/// How many bytes a column is. What is written once for many rows counts for each of them, as where it is read as text.
pub fn column_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => view_bytes(column.as_string_view()),
        DataType::BinaryView => view_bytes(column.as_binary_view()),
        DataType::Dictionary(_, _) => dictionary_bytes(column.as_any_dictionary()),
        other => match other.primitive_width() {
            Some(width) => column.len() * width,
            None if holds_dictionaries(other) => nested_bytes(column),
            None => slice_bytes(column),
        },
    }
}

fn dictionary_bytes(column: &dyn AnyDictionaryArray) -> usize {
    let values = column.values();
    if values.is_empty() {
        return column.len();
    }
    let keys = column.normalized_keys();
    let sum = |length: &dyn Fn(usize) -> usize| -> usize {
        let keys = keys.iter().enumerate().filter(|(row, _)| column.is_valid(*row));
        keys.map(|(_, place)| size_of::<u32>() + length(*place)).sum()
    };
    match values.data_type() {
        DataType::Utf8 => sum(&|place| values.as_string::<i32>().value_length(place) as usize),
        DataType::LargeUtf8 => sum(&|place| values.as_string::<i64>().value_length(place) as usize),
        DataType::Binary => sum(&|place| values.as_binary::<i32>().value_length(place) as usize),
        DataType::LargeBinary => sum(&|place| values.as_binary::<i64>().value_length(place) as usize),
        DataType::Utf8View => sum(&|place| values.as_string_view().value(place).len()),
        DataType::BinaryView => sum(&|place| values.as_binary_view().value(place).len()),
        other if holds_dictionaries(other) => column.len().saturating_mul(column_bytes(values)),
        _ => sum(&|_| slice_bytes(values) / values.len()),
    }
}

/// Whether something in a value of this type is written once for many rows.
fn holds_dictionaries(dtype: &DataType) -> bool {
    let of = |field: &FieldRef| holds_dictionaries(field.data_type());
    match dtype {
        DataType::Dictionary(_, _) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => of(item),
        DataType::Struct(fields) => fields.iter().any(of),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| of(field)),
        _ => false,
    }
}

/// Lists and the like whose items are written once: where they are spelled out, all items of all rows are, even for a
/// few of the rows.
fn nested_bytes(column: &ArrayRef) -> usize {
    let data = column.to_data();
    let children = data.child_data().iter().map(|child| column_bytes(&make_array(child.clone())));
    children.fold(slice_bytes(column), usize::saturating_add)
}

fn slice_bytes(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or(0)
}

/// Where in the bytes of all texts those of each list end, after where the first list's begin; none where the column
/// holds no lists of texts.
pub fn text_ends(column: &dyn Array) -> Option<Vec<i32>> {
    match column.data_type() {
        DataType::List(item) if *item.data_type() == DataType::Utf8 => {
            let lists = column.as_list::<i32>();
            let texts = lists.values().as_string::<i32>().value_offsets();
            Some(lists.value_offsets().iter().map(|end| texts[*end as usize]).collect())
        }
        DataType::FixedSizeList(item, length) if *item.data_type() == DataType::Utf8 => {
            let texts = column.as_fixed_size_list().values().as_string::<i32>().value_offsets();
            Some(texts.iter().step_by((*length).max(1) as usize).copied().collect())
        }
        _ => None,
    }
}

fn view_bytes<T: ByteViewType>(column: &GenericByteViewArray<T>) -> usize {
    // The length of each is in the lower half of its view, or what stands for it.
    column.views().iter().map(|view| size_of::<u128>() + (*view as u32) as usize).sum()
}

/// Refuses several rows that hold more than may be together.
///
/// # Errors
/// [`EngineError::TooLarge`]: fewer of them may do.
pub fn check_together(rows: usize, bytes: usize) -> Result<(), EngineError> {
    if rows > 1 && bytes > TOGETHER_BYTES_MAX {
        return Err(EngineError::TooLarge { rows });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, FixedSizeListArray, Float64Array, Int32Array, ListArray, ListBuilder, StringArray,
        StringBuilder, StructArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::compute::cast;
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    #[test]
    fn what_is_written_once_counts_for_each_row() {
        let text = "x".repeat(1_000);
        let plain: ArrayRef =
            Arc::new(StringArray::from(vec![Some(text.as_str()), None, Some(&text), Some("")]));
        let of = |dtype: &DataType| column_bytes(&cast(&plain, dtype).unwrap());
        let plain_bytes = column_bytes(&plain);
        assert!((2_000..2_100).contains(&plain_bytes), "{plain_bytes}");
        assert!((2_000..2_100).contains(&of(&DataType::Utf8View)));
        let key = Box::new(DataType::Int32);
        let dictionary = DataType::Dictionary(key, Box::new(DataType::Utf8));
        assert!((2_000..2_100).contains(&of(&dictionary)), "{}", of(&dictionary));
        let half = cast(&plain, &dictionary).unwrap().slice(1, 2);
        assert!((1_000..1_100).contains(&column_bytes(&half)), "{}", column_bytes(&half));
        assert_eq!(column_bytes(&(Arc::new(Float64Array::from(vec![1.0; 10])) as ArrayRef)), 80);
    }

    #[test]
    fn texts_of_lists_end_where_their_lists_do() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("ab"), None, Some("c")]);
        lists.append_null();
        lists.append_value([Some("defg")]);
        let lists: ArrayRef = Arc::new(lists.finish());
        assert_eq!(text_ends(&lists), Some(vec![0, 3, 3, 7]));
        assert_eq!(text_ends(&lists.slice(2, 1)), Some(vec![3, 7]));
        let texts = StringArray::from(vec!["ab", "", "c", "defg"]);
        let pairs = FixedSizeListArray::new(
            Arc::new(Field::new("item", DataType::Utf8, true)),
            2,
            Arc::new(texts),
            None,
        );
        assert_eq!(text_ends(&pairs), Some(vec![0, 2, 7]));
        assert_eq!(text_ends(&pairs.slice(1, 1)), Some(vec![2, 7]));
        assert_eq!(text_ends(&Float64Array::from(vec![1.0])), None);
    }

    #[test]
    fn what_is_written_once_within_lists_and_structs_counts_for_each_row() {
        let text = "x".repeat(1_000);
        let words: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter(vec![text.as_str(); 100]));
        let of = |item: &ArrayRef| Arc::new(Field::new("item", item.data_type().clone(), true));
        let list = |items: &ArrayRef| -> ArrayRef {
            let offsets = OffsetBuffer::from_lengths(vec![1; items.len()]);
            Arc::new(ListArray::new(of(items), offsets, Arc::clone(items), None))
        };
        let structs = StructArray::from(vec![(of(&words), Arc::clone(&words))]);
        for column in [list(&words), list(&list(&words)), Arc::new(structs)] {
            let (packed, bytes) = (slice_bytes(&column), column_bytes(&column));
            assert!(packed < 4_000 && (100_000..110_000).contains(&bytes), "{packed}, {bytes}");
        }
        let keys = Int32Array::from(vec![0; 5]);
        let twice: ArrayRef = Arc::new(DictionaryArray::new(keys, list(&words)));
        assert!(column_bytes(&twice) >= 500_000, "{}", column_bytes(&twice));
    }
}
