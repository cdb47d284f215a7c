"""What the requests of all connections share: the answer function, and room for reviews."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from webhook.review.errors import NotAReview
from webhook.serving import replies
from webhook.serving.failures import log_failure, one_line
from webhook.serving.in_flight import InFlight
from webhook.serving.metrics import Miss
from webhook.serving.replies import Reply

if TYPE_CHECKING:
    from webhook.review.answer import Answer, Keeping
    from webhook.serving.metrics import Metrics

Answering = Callable[[str, bytes, str], "Answer"]
"""Takes the path and the body of a request, and why it is too late to decide ("" where it is
not); it does as ``webhook.review.answer.Answerer.answer`` does."""

LATE = "the time that the API server allows for an answer was over"


class Reviews:
    """Turns a request that has come in whole into a reply.

    Args:
        answer: Decides; it is called on the event loop's thread, one request at a time.
        metrics: Every response is counted there.
        most_reviews: How many may be received or answered at a time.
    """

    def __init__(self, answer: Answering, metrics: Metrics, most_reviews: int) -> None:
        self._answer = answer
        self.metrics = metrics
        self.in_flight = InFlight(most_reviews, metrics.count_shed)
        metrics.watch_in_flight(self.in_flight.count)

    def review(self, path: str, body: bytes, deadline: float) -> tuple[Reply, Keeping | None, bool]:
        """Have a review decided.

        Args:
            path: The request's.
            body: Its body, whole.
            deadline: By when the reply should have left, on the clock of ``time.perf_counter``.

        Returns:
            The reply; the decision that is being kept, None where nothing is to be waited for;
            whether the deadline was missed, which is then counted.
        """
        late = time.perf_counter() >= deadline
        try:
            answer = self._answer(path, body, LATE if late else "")
        except NotAReview as error:
            reply = replies.line_reply(HTTPStatus.BAD_REQUEST, one_line(str(error)))
            return reply, None, late
        except Exception as error:
            log_failure("a review failed", error, path=path)
            return replies.FAILED, None, late
        missed = late or time.perf_counter() >= deadline
        if missed:
            self.metrics.count_deadline_miss(Miss.DECISION)
        return Reply(HTTPStatus.OK, answer.body, content_type=replies.JSON), answer.kept, missed
