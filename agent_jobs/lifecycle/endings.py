"""The texts and error codes of a job's end, shared by turns and deliveries."""

DELIVERY_FAILED = "delivery_failed"
# The most characters of a result or an error in a note.
NOTE_LENGTH = 200


def delivery_failure(code: str, message: str) -> str:
    return f"a message could not be delivered: {code}: {message}"


def completed_note(result: str | None) -> str:
    return f"COMPLETED: {(result or '')[:NOTE_LENGTH]}"
