"""Files and text that nobody vouches for. Everything the program asks of a file system or does to it is here.

    reading, files     questions and changes, one function each; what goes wrong becomes the project's one kind of error
    failures, limits   how it is said, and what a file system may not be able to do
    names, folders     what may be a file's name; what a folder is, by the names in it
    documents          small files, JSON and YAML, with their limits
    safetensors        the container: headers with every number checked
    hashing            the content hash
    descriptors        how many files may be open

It knows no models and no directories, and trusts no length, offset or name.
"""
