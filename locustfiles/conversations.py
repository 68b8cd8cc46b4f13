"""Conversations with an OpenAI-compatible endpoint. You need no code: all settings are options.

    OPENAI_API_KEY=... locust -f locustfiles/conversations.py --headless --host https://HOST/v1 --llm-model NAME \
        --llm-turns 3,1 --llm-think-time exp:2s --llm-sweep 1,2,4,8 --llm-requests 100 --csv out/run --llm-report

--llm-conversations FILE uses recorded conversations. The history always contains the answers that the model gave.
"""

from llm_users import ConversationUser


class Visitor(ConversationUser):
    """Holds one conversation after another with the chat API or the API that --llm-api names (responses)."""
