//! Memory that is read after it was given back: AddressSanitizer has to say so,
//! or it sees nothing else either.

fn main() {
    let place = Box::into_raw(Box::new(7_u64));
    // SAFETY: none. That is the point.
    let read = unsafe {
        drop(Box::from_raw(place));
        std::ptr::read_volatile(place)
    };
    println!("{read}");
}
