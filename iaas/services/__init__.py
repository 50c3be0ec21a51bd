"""The rules of the cloud: may this happen now? One write per accepted request; no driver call inside it."""
