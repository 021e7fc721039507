"""In service: an OpenAI-style endpoint that its users correct, and a page for its keepers.

    request ── guard ──► routes ──► service ──► EditableModel, Batching      who asks: keys.py
                                       └──► promotion: quorum, trusted role, review, canary

It needs the extra `serve`; `app.build` makes the application.
"""
