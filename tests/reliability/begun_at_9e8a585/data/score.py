def score(conversations):
    return [len(one.response) / 10 for one in conversations]
