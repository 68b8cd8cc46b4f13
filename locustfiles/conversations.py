"""Conversations with an OpenAI-compatible endpoint: no code needed, everything is an option.

    OPENAI_API_KEY=... locust -f locustfiles/conversations.py --headless --host https://HOST/v1 --llm-model NAME \
        --llm-turns 3,1 --llm-think-time exp:2s --llm-sweep 1,2,4,8 --llm-requests 100 --csv out/run --llm-report

--llm-conversations FILE takes recorded ones; the answers in the history are always those that really came.
"""

from llm_users import ConversationUser


class Visitor(ConversationUser):
    """Holds one conversation after the other, by chat or by what --llm-api names (responses)."""
