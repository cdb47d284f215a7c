"""Errors of reading a review."""

from __future__ import annotations


class NotAReview(ValueError):
    """The body of a request is not an AdmissionReview that can be answered.

    The message says what is wrong with it, in one line fit for the caller; the server answers
    HTTP 400 with it.
    """
