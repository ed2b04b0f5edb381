"""Models by the names that hubs give them: found in the caches of ModelScope and Hugging Face, or downloaded.

`locate` makes a folder of a path or a name, `cached` of a name. `names` says what a name is, `caches` where the hubs
keep what they downloaded: it is read without the hubs' packages and without network. `download` fetches what
`selection` finds needed, through `client`, the hubs' own clients in a worker process. Nothing that a hub or a cache
says is a path before it was checked.
"""
