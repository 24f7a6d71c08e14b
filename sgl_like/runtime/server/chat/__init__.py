"""Chats as all APIs have them: a conversation becomes a prompt, an answer is told apart into its parts."""
