"""Worker processes: forked by a server, called one method at a time, noticed when they die, ended with their parent.

pool        the processes
forkserver  the one they are forked from; why they are neither forks of the parent nor multiprocessing's
forking     the inside of that one
process     the loop inside a worker
tasks       independent tasks handed out until all are done
machine     how many processes cores and memory allow
progress    what a job says of its progress
"""
