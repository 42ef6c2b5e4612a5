"""Memory by its address, for numba: pointers from numbers, and additions that threads share."""

# mypy: ignore-errors
# numba infers the types; the same source is compiled for several.

from numba import types
from numba.extending import intrinsic


@intrinsic
def address_as(context, like, address):
    """The address as a pointer of the type of `like`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[1], arguments[0].type)

    return like(like, types.int64), generate


@intrinsic
def address_of(context, address, kind):
    """The address as a pointer to the number type `kind`."""
    pointer = types.CPointer(kind.dtype)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, kind), generate


@intrinsic
def words_at(context, pointer):
    """The same place as a pointer to int64."""
    words = types.CPointer(types.int64)

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(words))

    return words(pointer), generate


@intrinsic
def fetch_add(context, address, amount):
    """The int64 at the address, which is raised by `amount` in the same instant. Who sees it raised
    sees what was written before."""
    words = types.CPointer(types.int64)

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], context.get_value_type(words))
        return builder.atomic_rmw("add", place, arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate
